//! The softmax family and cross-entropy, on matrices of any layout.

#![no_main]

use arbitrary::{Result as Drawn, Unstructured};
use libfuzzer_sys::fuzz_target;
use nanproof::reference::{self, Wide};
use nanproof::*;
use nanproof_fuzz::*;

fn run<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    let long = u.ratio(1, 32)?;
    let rows = if long { u.int_in_range(0..=2)? } else { length(u, 40)? };
    let cols = if long { u.int_in_range(0..=5000)? } else { length(u, 70)? };
    let x = Matrix::<T>::draw(u, rows, cols, true)?;
    let out_shape = (nearly(u, rows)?, nearly(u, cols)?);
    let out = Matrix::<T>::draw(u, out_shape.0, out_shape.1, false)?;
    match u.int_in_range(0..=8)? {
        0 => {
            let options = Softmax {
                empty: if u.arbitrary()? { EmptyRow::Zeros } else { EmptyRow::Uniform },
                ..Softmax::default()
            };
            softmax_target(options, &x, &out);
        }
        1 => log_softmax_target(&x, &out),
        2 => logsumexp_target(u, &x)?,
        3 => {
            let dy = about::<T>(u, rows)?;
            logsumexp_backward_target(&x, &dy, &out);
        }
        4 => {
            let p = if u.arbitrary()? { forward(&x, |x, y| softmax(x, y)) } else { x };
            let dp = second(u, rows, cols)?;
            backward_target("softmax_backward", ["p", "dp"], &p, &dp, &out, softmax_backward);
        }
        5 => {
            let y = if u.arbitrary()? { forward(&x, |x, y| log_softmax(x, y)) } else { x };
            let dy = second(u, rows, cols)?;
            backward_target("log_softmax_backward", ["y", "dy"], &y, &dy, &out, log_softmax_backward);
        }
        which => {
            let mut targets = Vec::new();
            let (len, most) = (nearly(u, rows)?, cols.saturating_sub(1) as u32);
            let wild = u.ratio(1, 8)?;
            for _ in 0..len {
                targets.push(if wild && u.ratio(1, 8)? { u.arbitrary()? } else { u.int_in_range(0..=most)? });
            }
            let ignore = if u.arbitrary()? { Some(targets.first().copied().unwrap_or(7)) } else { None };
            let reduction = if u.arbitrary()? { Reduction::Mean } else { Reduction::Sum };
            let g = if which == 7 { scalar(u)? } else { T::one() };
            cross_entropy_target(
                which,
                CrossEntropy { ignore, reduction, ..CrossEntropy::default() },
                &x,
                &targets,
                g,
                &out,
            );
        }
    }
    Ok(())
}

fn second<T: Float>(u: &mut Unstructured<'_>, rows: usize, cols: usize) -> Drawn<Matrix<T>> {
    let (rows, cols) = (nearly(u, rows)?, nearly(u, cols)?);
    Matrix::draw(u, rows, cols, true)
}

/// The result of a forward function, whatever it is.
fn forward<T: Float>(x: &Matrix<T>, f: impl Fn(MatRef<'_, T>, MatMut<'_, T>) -> Result<usize>) -> Matrix<T> {
    let mut y = x.to_dense();
    let _ = f(x.read(), y.place.write(&mut y.data));
    y
}

fn is_plain<T: Float>(x: &[T]) -> bool {
    x.iter().all(|&x| x < T::infinity())
}

/// The rows to compare with the reference, which takes microseconds an element.
fn few_rows<T: Float>(x: &Matrix<T>) -> impl Iterator<Item = (usize, Vec<T>)> {
    let count = if x.place.cols == 0 { 0 } else { x.place.rows.min(64 / x.place.cols) };
    (0..count).map(|i| (i, x.row(i))).filter(|(_, x)| is_plain(x))
}

fn empty_rows<T: Float>(x: &Matrix<T>) -> usize {
    let is_empty = |&i: &usize| x.place.cols > 0 && x.row(i).iter().all(|&x| x == T::neg_infinity());
    (0..x.place.rows).filter(is_empty).count()
}

fn softmax_target<T: Float>(options: Softmax<'_, T>, x: &Matrix<T>, out: &Matrix<T>) {
    let f = |[x, _]: [MatRef<'_, T>; 2], y: MatMut<'_, T>| softmax_with(options, x, y).map(|n| (n, T::zero()));
    let (y, result) = everywhere_and_dense("softmax", [x, x], out, f);
    check_report(&result, &[("x", Operand::Matrix(x.read()))], &[], &[]);
    assert_eq!(is_refused(&result), !x.has_shape_of(out), "{result:?}");
    if is_refused(&result) {
        return;
    }
    assert_eq!(is_reported(&result), !is_plain(&elements(x.read())), "softmax: {result:?}");
    if let Ok((empty, _)) = result {
        assert_eq!(empty, empty_rows(x));
        assert!(elements(y.read()).iter().all(|y| (T::zero()..=T::one()).contains(y)));
    }
    for (i, x) in few_rows(x) {
        let is_empty = x.iter().all(|&x| x == T::neg_infinity());
        for (j, (got, want)) in y.row(i).into_iter().zip(reference::softmax(&x)).enumerate() {
            match (is_empty, options.empty) {
                (true, EmptyRow::Uniform) => assert!(same(got, T::one() / num(x.len() as f64))),
                _ => assert_ulp(&format!("softmax of {x:?} at {j}"), got, want, 2.0),
            }
        }
    }
}

fn log_softmax_target<T: Float>(x: &Matrix<T>, out: &Matrix<T>) {
    let f = |[x, _]: [MatRef<'_, T>; 2], y: MatMut<'_, T>| log_softmax(x, y).map(|n| (n, T::zero()));
    let (y, result) = everywhere_and_dense("log_softmax", [x, x], out, f);
    check_report(&result, &[("x", Operand::Matrix(x.read()))], &[("y", Operand::Matrix(y.read()))], &[]);
    assert_eq!(is_refused(&result), !x.has_shape_of(out), "{result:?}");
    if is_refused(&result) {
        return;
    }
    let (all_x, all_y) = (elements(x.read()), elements(y.read()));
    let is_fault = |(&x, &y): (&T, &T)| !y.is_finite() && !(x == T::neg_infinity() && y == x);
    let faults = !is_plain(&all_x) || all_x.iter().zip(&all_y).any(is_fault);
    assert_eq!(is_reported(&result), faults, "log_softmax: {result:?}");
    if let Ok((empty, _)) = result {
        assert_eq!(empty, empty_rows(x));
    }
    for (i, x) in few_rows(x) {
        for (j, (got, want)) in y.row(i).into_iter().zip(reference::log_softmax(&x)).enumerate() {
            assert_ulp(&format!("log_softmax of {x:?} at {j}"), got, want, 2.0);
        }
    }
}

fn logsumexp_target<T: Float>(u: &mut Unstructured<'_>, x: &Matrix<T>) -> Drawn<()> {
    let y = about::<T>(u, x.place.rows)?;
    let Outcome { written: [y], result } = everywhere("logsumexp", [&y], |[y]| logsumexp(x.read(), y));
    check_report(&result, &[("x", Operand::Matrix(x.read()))], &[("y", Operand::Slice(&y))], &[]);
    assert_eq!(is_refused(&result), y.len() != x.place.rows, "{result:?}");
    if is_refused(&result) {
        return Ok(());
    }
    assert_eq!(is_reported(&result), !is_plain(&elements(x.read())), "logsumexp: {result:?}");
    for (i, x) in few_rows(x) {
        let (got, want) = (y[i], reference::logsumexp(&x));
        let largest = x.iter().fold(T::neg_infinity(), |max, &x| max.max(x));
        if largest.is_finite() && largest < T::zero() {
            // Within 2 ULP of the maximum, which is no less than those of the result.
            let step = Wide::new(largest.abs().max(T::min_positive_value()) * T::epsilon());
            let error = step * Wide::new(2.0);
            let loose = want.abs() <= Wide::new(largest.abs());
            if loose { assert_near("logsumexp", got, want, error) } else { assert_ulp("logsumexp", got, want, 2.0) }
        } else {
            assert_ulp(&format!("logsumexp of {x:?}"), got, want, 2.0);
        }
    }
    Ok(())
}

fn logsumexp_backward_target<T: Float>(x: &Matrix<T>, dy: &[T], out: &Matrix<T>) {
    let f = |[x, _]: [MatRef<'_, T>; 2], dx: MatMut<'_, T>| logsumexp_backward(x, dy, dx).map(|()| (0, T::zero()));
    let (dx, result) = everywhere_and_dense("logsumexp_backward", [x, x], out, f);
    let inputs = [("x", Operand::Matrix(x.read())), ("dy", Operand::Slice(dy))];
    check_report(&result, &inputs, &[("dx", Operand::Matrix(dx.read()))], &[]);
    assert_eq!(is_refused(&result), !x.has_shape_of(out) || dy.len() != x.place.rows, "{result:?}");
    if is_refused(&result) || x.place.rows * x.place.cols == 0 {
        return;
    }
    // The gradient of a row of -inf is 0, whatever comes from upstream.
    let is_empty = |i: usize| x.row(i).iter().all(|&x| x == T::neg_infinity());
    let counts = |i: usize| !dy[i].is_finite() && !is_empty(i);
    let faults = !is_plain(&elements(x.read())) || (0..dy.len()).any(counts);
    assert_eq!(is_reported(&result), faults, "logsumexp_backward: {result:?}");
    assert!(faults || all_finite(&elements(dx.read())));
    for (i, x) in few_rows(x) {
        if dy[i].is_finite() {
            for (j, (got, want)) in dx.row(i).into_iter().zip(reference::logsumexp_backward(&x, dy[i])).enumerate() {
                assert_ulp(&format!("logsumexp_backward of {x:?}, {:e}, at {j}", dy[i]), got, want, 3.0);
            }
        }
    }
}

fn backward_target<T: Float>(
    name: &str,
    names: [&str; 2],
    x: &Matrix<T>,
    dy: &Matrix<T>,
    out: &Matrix<T>,
    backward: fn(MatRef<'_, T>, MatRef<'_, T>, MatMut<'_, T>) -> Result<()>,
) {
    let f = |[x, dy]: [MatRef<'_, T>; 2], dx: MatMut<'_, T>| backward(x, dy, dx).map(|()| (0, T::zero()));
    let (dx, result) = everywhere_and_dense(name, [x, dy], out, f);
    let inputs = [(names[0], Operand::Matrix(x.read())), (names[1], Operand::Matrix(dy.read()))];
    check_report(&result, &inputs, &[("dx", Operand::Matrix(dx.read()))], &[]);
    assert_eq!(is_refused(&result), !x.has_shape_of(out) || !x.has_shape_of(dy), "{result:?}");
    if !is_refused(&result) {
        assert_eq!(is_reported(&result), !all_finite(&elements(dx.read())), "{name}: {result:?}");
        // An entry of probability 0 gets exactly 0.
        let impossible = if name == "softmax_backward" { T::zero() } else { T::neg_infinity() };
        for (x, dx) in elements(x.read()).into_iter().zip(elements(dx.read())) {
            assert!(x != impossible || dx.is_zero(), "{name}: {dx:e} where nothing is possible");
        }
    }
}

fn cross_entropy_target<T: Float>(
    which: u8,
    options: CrossEntropy<'_, T>,
    x: &Matrix<T>,
    targets: &[u32],
    g: T,
    out: &Matrix<T>,
) {
    let returned = |loss: Loss<T>| (loss.count, loss.value);
    let f = |[x, _]: [MatRef<'_, T>; 2], dx: MatMut<'_, T>| match which {
        6 => cross_entropy(options, x, targets).map(returned),
        7 => cross_entropy_backward(options, x, targets, g, dx).map(|()| (0, T::zero())),
        _ => cross_entropy_with_gradient(options, x, targets, dx).map(returned),
    };
    let (dx, result) = everywhere_and_dense("cross_entropy", [x, x], out, f);
    let inputs = [("logits", Operand::Matrix(x.read())), ("g", Operand::Scalar(g))];
    check_report(&result, &inputs, &[("dlogits", Operand::Matrix(dx.read()))], &["losses", "loss"]);
    let counts = |&&target: &&u32| Some(target) != options.ignore;
    let count = targets.iter().filter(counts).count();
    let refused = targets.len() != x.place.rows
        || targets.iter().filter(counts).any(|&target| target as usize >= x.place.cols)
        || which != 6 && !x.has_shape_of(out);
    assert_eq!(is_refused(&result), refused, "{result:?}");
    if refused {
        return;
    }
    let read: Vec<Vec<T>> = (0..targets.len()).filter(|&i| counts(&&targets[i])).map(|i| x.row(i)).collect();
    let plain = read.iter().all(|x| is_plain(x));
    if !plain || !g.is_finite() {
        assert!(is_reported(&result), "cross_entropy overlooked a logit or g");
    }
    if which != 6 {
        for i in 0..targets.len() {
            if !counts(&&targets[i]) {
                assert!(dx.row(i).iter().all(|dx| dx.is_zero()), "a row that is ignored");
            }
        }
    }
    if let Ok((n, value)) = result {
        assert!(which == 7 || n == count);
        assert!(value >= T::zero() && value.is_finite() && (count > 0 || value.is_zero()));
        assert!(which == 6 || all_finite(&elements(dx.read())));
    }
    if !plain || !g.is_finite() || read.iter().flatten().count() > 64 {
        return;
    }
    if which != 7 && count == 1 {
        let want = reference::cross_entropy(options, x.read(), targets);
        match result {
            Ok((_, value)) => assert_ulp(&format!("cross_entropy of {read:?}, {targets:?}"), value, want, 2.0),
            Err(_) => assert!(want.abs() >= Wide::new(T::max_value()), "{result:?} for {:e}", want.to_f64()),
        }
    }
    if which != 6 {
        let want = reference::cross_entropy_backward(options, x.read(), targets, g);
        for (j, (got, want)) in elements(dx.read()).into_iter().zip(want).enumerate() {
            assert_ulp(&format!("cross_entropy_backward of {read:?}, {targets:?}, {g:e}, at {j}"), got, want, 3.0);
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let u = &mut Unstructured::new(data);
    let _ = if u.arbitrary().unwrap_or(false) { run::<f64>(u) } else { run::<f32>(u) };
});
