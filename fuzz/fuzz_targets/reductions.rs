//! Sums, norms, and clipping by them.

#![no_main]

use arbitrary::{Result as Drawn, Unstructured};
use libfuzzer_sys::fuzz_target;
use nanproof::reference::{self, Wide};
use nanproof::*;
use nanproof_fuzz::*;

fn run<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    let len = if u.ratio(1, 16)? { u.int_in_range(0..=5000)? } else { length(u, 200)? };
    let x = numbers::<T>(u, len)?;
    match u.int_in_range(0..=7)? {
        0 => sum_target(&x),
        1 => dot_target(&x, &about(u, len)?),
        2 => norm_target(&x),
        3 => {
            let (g, mut dx) = (scalar(u)?, x);
            let result = sum_backward(g, &mut dx);
            assert_eq!(is_reported(&result), !g.is_finite());
            assert!(dx.iter().all(|&dx| same(dx, g)));
        }
        4 => {
            let (b, g) = (about(u, len)?, scalar(u)?);
            let (da, db) = (about(u, len)?, about(u, len)?);
            dot_backward_target(&x, &b, g, &da, &db);
        }
        5 => norm_backward_target(&x, scalar(u)?, &about(u, len)?),
        which => {
            let mut tensors = vec![x];
            if which == 7 {
                tensors.clear();
                for _ in 0..u.int_in_range(0..=4)? {
                    let len = length(u, 100)?;
                    tensors.push(numbers(u, len)?);
                }
            }
            clip_target(&tensors, scalar(u)?, which == 6);
        }
    }
    Ok(())
}

/// `u |s| + n^2 u^2 (|a[0] b[0]| + ...)`, and `n` times the smallest number.
fn bound<T: Float>(a: &[T], b: &[T], want: Wide) -> Wide {
    let [magnitudes_a, magnitudes_b] = [a, b].map(|x| x.iter().map(|x| x.abs()).collect::<Vec<_>>());
    let (u, n) = (unit_roundoff::<T>(), a.len() as f64);
    Wide::new(u) * want.abs()
        + Wide::new(n * n * u * u) * reference::dot(&magnitudes_a, &magnitudes_b)
        + Wide::new(n) * smallest::<T>()
}

fn sum_target<T: Float>(x: &[T]) {
    let Outcome { result, .. } = everywhere("sum", [], |[]: [&mut [T]; 0]| sum(x));
    check_report(&result, &[("x", Operand::Slice(x))], &[], &["sum"]);
    scalar_target("sum", &result, all_finite(x), || {
        let want = reference::sum(x);
        (want, bound(x, &vec![T::one(); x.len()], want))
    });
}

fn dot_target<T: Float>(a: &[T], b: &[T]) {
    let Outcome { result, .. } = everywhere("dot", [], |[]: [&mut [T]; 0]| dot(a, b));
    check_report(&result, &[("a", Operand::Slice(a)), ("b", Operand::Slice(b))], &[], &["dot"]);
    assert_eq!(is_refused(&result), a.len() != b.len());
    if a.len() == b.len() {
        scalar_target("dot", &result, all_finite(a) && all_finite(b), || {
            let want = reference::dot(a, b);
            (want, bound(a, b, want))
        });
    }
}

fn norm_target<T: Float>(x: &[T]) {
    let Outcome { result, .. } = everywhere("l2_norm", [], |[]: [&mut [T]; 0]| l2_norm(x));
    check_report(&result, &[("x", Operand::Slice(x))], &[], &["norm"]);
    scalar_target("l2_norm", &result, all_finite(x), || {
        let want = reference::l2_norm(x);
        (want, Wide::new(2.0 * unit_roundoff::<T>()) * want + smallest::<T>())
    });
    if let Ok(norm) = result {
        assert_ulp("l2_norm", norm, reference::l2_norm(x), 1.0);
    }
}

/// Holds a sum to its true value: it is reported where an operand is not finite, and else if it overflows.
fn scalar_target<T: Float>(name: &str, result: &Result<T>, finite: bool, want: impl Fn() -> (Wide, Wide)) {
    let value = match result {
        Ok(value) => *value,
        Err(_) => T::infinity(),
    };
    assert_eq!(is_reported(result), !value.is_finite(), "{name}: {result:?}");
    if finite {
        let (want, error) = want();
        assert_near(name, value, want, error);
    } else {
        assert!(is_reported(result), "{name} overlooked an operand");
    }
}

fn dot_backward_target<T: Float>(a: &[T], b: &[T], g: T, da: &[T], db: &[T]) {
    let f = |[da, db]: [&mut [T]; 2]| dot_backward(a, b, g, da, db);
    let Outcome { written: [da, db], result } = everywhere("dot_backward", [da, db], f);
    let inputs = [("a", Operand::Slice(a)), ("b", Operand::Slice(b)), ("g", Operand::Scalar(g))];
    check_report(&result, &inputs, &[("da", Operand::Slice(&da)), ("db", Operand::Slice(&db))], &[]);
    let fits = [b.len(), da.len(), db.len()] == [a.len(); 3];
    assert_eq!(is_refused(&result), !fits);
    if fits {
        assert!((0..a.len()).all(|i| same(da[i], g * b[i]) && same(db[i], g * a[i])), "{g:e}, {a:?}, {b:?}");
        assert_eq!(is_reported(&result), !(all_finite(&da) && all_finite(&db)), "{result:?}");
    }
}

fn norm_backward_target<T: Float>(x: &[T], g: T, dx: &[T]) {
    let Outcome { written: [dx], result } = everywhere("l2_norm_backward", [dx], |[dx]| l2_norm_backward(x, g, dx));
    let inputs = [("x", Operand::Slice(x)), ("g", Operand::Scalar(g))];
    check_report(&result, &inputs, &[("dx", Operand::Slice(&dx))], &[]);
    assert_eq!(is_refused(&result), x.len() != dx.len());
    if x.len() != dx.len() {
        return;
    }
    assert_eq!(is_reported(&result), !(all_finite(x) && g.is_finite()), "l2_norm_backward, {g:e}: {result:?}");
    if result.is_ok() {
        for (i, (&got, want)) in dx.iter().zip(reference::l2_norm_backward(x, g)).enumerate() {
            assert_ulp(&format!("l2_norm_backward of {:e}, {g:e}, at {i} of {}", x[i], x.len()), got, want, 4.0);
        }
    }
}

fn clip_target<T: Float>(tensors: &[Vec<T>], max: T, alone: bool) {
    let name = if alone { "clip_by_norm" } else { "clip_by_global_norm" };
    // All tensors in one slice, to be written.
    let flat = tensors.concat();
    let Outcome { written: [written], result } = everywhere(name, [&flat], |[flat]| {
        let mut rest = flat;
        let mut parts = Vec::new();
        for tensor in tensors {
            let (part, others) = rest.split_at_mut(tensor.len());
            parts.push(part);
            rest = others;
        }
        if alone { clip_by_norm(parts[0], max) } else { clip_by_global_norm(&mut parts, max) }
    });
    let allowed = max >= T::zero();
    assert_eq!(is_refused(&result), !allowed, "{result:?}");
    // A single tensor may be named with or without its number.
    check_report(&result, &[("tensors", Operand::Tensors(tensors))], &[], &[]);
    if !allowed {
        return;
    }
    assert_eq!(is_reported(&result), !all_finite(&flat), "{result:?}");
    match result {
        Err(_) => assert_same("clipping wrote what it refused", &written, &flat),
        Ok(clip) => {
            let norm = reference::l2_norm(&flat);
            assert_ulp("the norm", clip.norm, norm, 2.0);
            assert!(clip.clipped || clip.scale == T::one() && flat == written);
            let want = reference::clip_by_norm(&flat, max);
            for (i, (&got, want)) in written.iter().zip(want).enumerate() {
                assert_ulp(&format!("{name} of {:e} to {max:e}, at {i} of {}", flat[i], flat.len()), got, want, 4.0);
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let u = &mut Unstructured::new(data);
    let _ = if u.arbitrary().unwrap_or(false) { run::<f64>(u) } else { run::<f32>(u) };
});
