//! Element by element: activations, safe division, clipping by value, and the optimisers.

#![no_main]

use arbitrary::{Result as Drawn, Unstructured};
use libfuzzer_sys::fuzz_target;
use nanproof::reference;
use nanproof::*;
use nanproof_fuzz::*;

fn run<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    let len = if u.ratio(1, 16)? { u.int_in_range(0..=2000)? } else { length(u, 150)? };
    let x = numbers::<T>(u, len)?;
    match u.int_in_range(0..=9)? {
        0 => relu_target(&x, &about(u, len)?),
        1 => tanh_target(&x, &about(u, len)?),
        which @ (2 | 3) => backward_target(which == 2, &x, &about(u, len)?, &about(u, len)?),
        4 => quotient_target(scalar(u)?, &x, &about(u, len)?, &about(u, len)?),
        5 => quotient_backward_target(&x, &about(u, len)?, &about(u, len)?, [&about(u, len)?, &about(u, len)?]),
        6 => clamp_target(&x, scalar(u)?),
        7 => clamp_backward_target(&x, scalar(u)?, &about(u, len)?, &about(u, len)?),
        8 => {
            let sgd = Sgd { learning_rate: setting(u)?, momentum: setting(u)?, weight_decay: setting(u)? };
            sgd_target(sgd, &x, &about(u, len)?, &about(u, len)?);
        }
        _ => {
            let adamw = AdamW {
                learning_rate: setting(u)?,
                beta1: setting(u)?,
                beta2: setting(u)?,
                eps: setting(u)?,
                weight_decay: setting(u)?,
            };
            let t = if u.arbitrary()? { u.int_in_range(0..=9)? } else { u.arbitrary()? };
            adamw_target(adamw, t, &x, &about(u, len)?, &about(u, len)?, &about(u, len)?);
        }
    }
    Ok(())
}

/// Mostly within `[0, 1)`.
fn setting<T: Float>(u: &mut Unstructured<'_>) -> Drawn<T> {
    if u.ratio(1, 4)? { scalar(u) } else { Ok(num(f64::from(u.arbitrary::<u16>()?) / 65536.0)) }
}

fn relu_target<T: Float>(x: &[T], y: &[T]) {
    let Outcome { written: [y], result } = everywhere("relu", [y], |[y]| relu(x, y));
    check_report(&result, &[("x", Operand::Slice(x))], &[("y", Operand::Slice(&y))], &[]);
    assert_eq!(is_refused(&result), x.len() != y.len());
    if x.len() == y.len() {
        let rectified = |x: T| if x <= T::zero() { T::zero() } else { x };
        assert!(x.iter().zip(&y).all(|(&x, &y)| same(y, rectified(x))), "relu of {x:?}: {y:?}");
        assert_eq!(is_reported(&result), !all_finite(&y));
    }
}

fn tanh_target<T: Float>(x: &[T], y: &[T]) {
    let Outcome { written: [y], result } = everywhere("tanh", [y], |[y]| tanh(x, y));
    check_report(&result, &[("x", Operand::Slice(x))], &[("y", Operand::Slice(&y))], &[]);
    assert_eq!(is_refused(&result), x.len() != y.len());
    if x.len() == y.len() {
        assert_eq!(is_reported(&result), x.iter().any(|x| x.is_nan()));
        let bound = if T::FRACTION_BITS < 30 { 1.0 } else { 1.5 };
        for (&x, &y) in x.iter().zip(&y).take(64) {
            assert_ulp(&format!("tanh of {x:e}"), y, reference::tanh(x), bound);
            assert!(x.is_nan() || x.is_sign_negative() == y.is_sign_negative(), "tanh of {x:e} is {y:e}");
        }
    }
}

fn backward_target<T: Float>(relu: bool, x: &[T], dy: &[T], dx: &[T]) {
    let name = if relu { "relu_backward" } else { "tanh_backward" };
    let f = |[dx]: [&mut [T]; 1]| if relu { relu_backward(x, dy, dx) } else { tanh_backward(x, dy, dx) };
    let Outcome { written: [dx], result } = everywhere(name, [dx], f);
    let inputs = [("x", Operand::Slice(x)), ("dy", Operand::Slice(dy))];
    check_report(&result, &inputs, &[("dx", Operand::Slice(&dx))], &[]);
    assert_eq!(is_refused(&result), x.len() != dy.len() || x.len() != dx.len());
    if is_refused(&result) {
        return;
    }
    assert_eq!(is_reported(&result), !all_finite(&dx), "{name} of {x:?}, {dy:?}: {dx:?}, {result:?}");
    for ((&x, &dy), &dx) in x.iter().zip(dy).zip(&dx) {
        let (nan, zero) = (x.is_nan(), if relu { x <= T::zero() } else { false });
        let context = || format!("{name} of {x:e}, {dy:e}: {dx:e}");
        assert!(!nan || dx.is_nan(), "{}", context());
        assert!(!zero || dx.is_zero(), "{}", context());
        assert!(!relu || nan || zero || same(dx, dy), "{}", context());
        assert!(relu || !(x.is_infinite() && dy.is_finite()) || dx.is_zero(), "{}", context());
        assert!(nan || dy.is_nan() || !dx.is_nan() || dy.is_infinite(), "{}", context());
        // The derivative is 1 at the most.
        assert!(nan || dy.is_nan() || !dy.is_finite() || dx.abs() <= dy.abs(), "{}", context());
    }
}

fn quotient_target<T: Float>(default: T, a: &[T], b: &[T], q: &[T]) {
    let Outcome { written: [q], result } =
        everywhere("safe_div", [q], |[q]| safe_div_with(SafeDiv { default }, a, b, q));
    let inputs = [("a", Operand::Slice(a)), ("b", Operand::Slice(b)), ("default", Operand::Scalar(default))];
    check_report(&result, &inputs, &[("q", Operand::Slice(&q))], &[]);
    assert_eq!(is_refused(&result), a.len() != b.len() || a.len() != q.len());
    if is_refused(&result) {
        return;
    }
    assert_eq!(is_reported(&result), !all_finite(&q), "safe_div: {result:?}");
    let quotient = |a: T, b: T| if b.is_zero() { default } else { a / b };
    assert!((0..a.len()).all(|i| same(q[i], quotient(a[i], b[i]))), "safe_div of {a:?}, {b:?}: {q:?}");
    if let Ok(zeros) = result {
        assert_eq!(zeros, b.iter().filter(|b| b.is_zero()).count());
    }
}

fn quotient_backward_target<T: Float>(a: &[T], b: &[T], g: &[T], outputs: [&[T]; 2]) {
    let f = |[da, db]: [&mut [T]; 2]| safe_div_backward(a, b, g, da, db);
    let Outcome { written: [da, db], result } = everywhere("safe_div_backward", outputs, f);
    let inputs = [("a", Operand::Slice(a)), ("b", Operand::Slice(b)), ("g", Operand::Slice(g))];
    check_report(&result, &inputs, &[("da", Operand::Slice(&da)), ("db", Operand::Slice(&db))], &[]);
    let fits = [b.len(), g.len(), da.len(), db.len()] == [a.len(); 4];
    assert_eq!(is_refused(&result), !fits);
    if !fits {
        return;
    }
    assert_eq!(is_reported(&result), !(all_finite(&da) && all_finite(&db)), "safe_div_backward: {result:?}");
    if let Ok(zeros) = result {
        assert_eq!(zeros, b.iter().filter(|b| b.is_zero()).count());
    }
    for i in 0..a.len().min(64) {
        let (a, b, g, da, db) = (a[i], b[i], g[i], da[i], db[i]);
        let context = format!("safe_div_backward of {a:e}, {b:e}, {g:e}: {da:e}, {db:e}");
        if b.is_zero() || g.is_zero() && !a.is_nan() && !b.is_nan() {
            assert!(da.is_zero() && db.is_zero(), "{context}");
        } else if all_finite(&[a, b, g]) {
            let [want_da, want_db] = reference::safe_div_backward(a, b, g);
            assert!(same(da, g / b), "{context}");
            assert_ulp(&context, da, want_da, 0.500_001);
            assert_ulp(&context, db, want_db, 2.0);
        } else if b.is_nan() {
            assert!(da.is_nan() && db.is_nan(), "{context}");
        } else {
            assert!(!a.is_nan() || db.is_nan(), "{context}");
            assert!(!g.is_nan() || da.is_nan() && db.is_nan(), "{context}");
        }
    }
}

fn clamp_target<T: Float>(x: &[T], limit: T) {
    let Outcome { written: [y], result } = everywhere("clip_by_value", [x], |[x]| clip_by_value(x, limit));
    check_report(&result, &[("x", Operand::Slice(x))], &[], &[]);
    let allowed = limit >= T::zero();
    assert_eq!(is_refused(&result), !allowed);
    if !allowed {
        return;
    }
    let clamped: Vec<T> = x.iter().map(|&x| if x.abs() > limit { limit.copysign(x) } else { x }).collect();
    assert_eq!(is_reported(&result), !all_finite(&clamped), "clip_by_value to {limit:e}: {result:?}");
    match result {
        Ok(outside) => {
            assert_same("clip_by_value", &y, &clamped);
            assert_eq!(outside, x.iter().filter(|x| x.abs() > limit).count());
        }
        Err(_) => assert_same("clip_by_value wrote what it refused", &y, x),
    }
}

fn clamp_backward_target<T: Float>(x: &[T], limit: T, dy: &[T], dx: &[T]) {
    let f = |[dx]: [&mut [T]; 1]| clip_by_value_backward(x, limit, dy, dx);
    let Outcome { written: [dx], result } = everywhere("clip_by_value_backward", [dx], f);
    let inputs = [("x", Operand::Slice(x)), ("dy", Operand::Slice(dy))];
    check_report(&result, &inputs, &[("dx", Operand::Slice(&dx))], &[]);
    let allowed = limit >= T::zero() && x.len() == dy.len() && x.len() == dx.len();
    assert_eq!(is_refused(&result), !allowed);
    if allowed {
        let gradient = |x: T, dy: T| match x.partial_cmp(&T::zero()) {
            None => x,
            _ if x.abs() > limit => T::zero(),
            _ => dy,
        };
        assert!((0..x.len()).all(|i| same(dx[i], gradient(x[i], dy[i]))), "{x:?}, {limit:e}, {dy:?}: {dx:?}");
        assert_eq!(is_reported(&result), !all_finite(&dx));
    }
}

/// What an optimiser may do: write everything, all of it finite, or say what is wrong and write nothing.
fn check_step<T: Float, const N: usize>(
    result: &Result<()>,
    before: [(&str, &[T]); N],
    after: &[Vec<T>],
    g: &[T],
    settings: &str,
) {
    let mut inputs: Vec<_> = before.iter().map(|&(name, x)| (name, Operand::Slice(x))).collect();
    inputs.push(("g", Operand::Slice(g)));
    check_report(result, &inputs, &[], &["the update"]);
    match result {
        Ok(()) => {
            assert!(after.iter().all(|x| all_finite(x)) && all_finite(g), "{settings}: not finite and not reported")
        }
        Err(_) => {
            for (after, (name, before)) in after.iter().zip(before) {
                assert_same(&format!("{settings}: {name} was written though refused"), after, before);
            }
        }
    }
    let finite = all_finite(g) && before.iter().all(|(_, x)| all_finite(x));
    assert!(finite || result.is_err(), "{settings}: overlooked an operand");
}

fn sgd_target<T: Float>(sgd: Sgd<T>, w: &[T], g: &[T], v: &[T]) {
    let Outcome { written, result } = everywhere("sgd", [w, v], |[w, v]| sgd.step(w, g, v));
    let in_range = |x: T| x >= T::zero() && x.is_finite();
    let allowed = in_range(sgd.learning_rate)
        && in_range(sgd.momentum)
        && sgd.momentum < T::one()
        && in_range(sgd.weight_decay)
        && g.len() == w.len()
        && v.len() == w.len();
    assert_eq!(is_refused(&result), !allowed, "{sgd:?}: {result:?}");
    check_step(&result, [("w", w), ("v", v)], &written, g, &format!("{sgd:?}"));
    if allowed {
        // v = momentum v + (weight_decay w + g), w = w - learning_rate v: three fused multiply-adds.
        let new_v: Vec<T> =
            (0..w.len()).map(|i| v[i].mul_add(sgd.momentum, w[i].mul_add(sgd.weight_decay, g[i]))).collect();
        let new_w: Vec<T> = (0..w.len()).map(|i| new_v[i].mul_add(-sgd.learning_rate, w[i])).collect();
        assert_eq!(is_reported(&result), !(all_finite(&new_v) && all_finite(&new_w)), "{sgd:?}: {result:?}");
        if result.is_ok() {
            assert_same("w", &written[0], &new_w);
            assert_same("v", &written[1], &new_v);
        }
    }
}

fn adamw_target<T: Float>(adamw: AdamW<T>, t: u32, w: &[T], g: &[T], m: &[T], v: &[T]) {
    let Outcome { written, result } = everywhere("adamw", [w, m, v], |[w, m, v]| adamw.step(t, w, g, m, v));
    let in_range = |x: T| x >= T::zero() && x.is_finite();
    let allowed = [adamw.learning_rate, adamw.beta1, adamw.beta2, adamw.weight_decay].into_iter().all(in_range)
        && adamw.beta1 < T::one()
        && adamw.beta2 < T::one()
        && adamw.eps >= T::min_positive_value()
        && adamw.eps.is_finite()
        && t > 0
        && [g.len(), m.len(), v.len()] == [w.len(); 3];
    assert_eq!(is_refused(&result), !allowed, "{adamw:?}: {result:?}");
    check_step(&result, [("w", w), ("m", m), ("v", v)], &written, g, &format!("{adamw:?}, step {t}"));
}

fuzz_target!(|data: &[u8]| {
    let u = &mut Unstructured::new(data);
    let _ = if u.arbitrary().unwrap_or(false) { run::<f64>(u) } else { run::<f32>(u) };
});
