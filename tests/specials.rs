//! NaN and infinities wherever they may stand: what they do to the value, what the report says, where they must not be
//! seen; overflow on the way to a number; arguments that are refused.

mod common;

use common::{Case, Kind, assert_same, data, every_op, mat, mat_mut, num, nums, report};
use nanproof::reference::{self, Wide, ulp_error};
use nanproof::{
    Adam, AdamW, Class, Clip, Clipping, CrossEntropy, DynamicLossScale, Error, Float, Index, LossStep, MatMut, MatRef,
    Matmul, NormPartial, OnFault, Origin, Reduction, Safe, Sgd, atan2, atan2_backward, check_finite,
    clip_by_global_norm, clip_by_global_norm_with, clip_by_norm, clip_by_rms, clip_by_value, clip_by_value_backward,
    clip_rows_by_norm, clip_unitwise, cross_entropy, cross_entropy_backward, cross_entropy_with_gradient, dot,
    dot_backward, l2_norm, l2_norm_backward, log_softmax, log_softmax_backward, logsumexp, logsumexp_backward, matmul,
    matmul_backward, matmul_with, relu, relu_backward, safe_div, safe_div_backward, safe_div_with, safe_ln, safe_mul,
    safe_mul_backward, safe_pow, safe_pow_backward, safe_recip, safe_rsqrt_backward, safe_sqrt_backward, softmax,
    softmax_backward, sum, sum_backward, tanh, tanh_backward, unscale, xlog1py_backward, xlogy,
};

/// Every operand of every operation: the place in [`Case`] (0 for `x`), its name in reports, whether it is a matrix,
/// and which of NaN, +Inf and -Inf are faults there.
const OPERANDS: &[(&str, usize, &str, bool, &str)] = &[
    ("relu", 0, "x", false, "n+"),
    ("relu_backward", 0, "x", false, "n"),
    ("relu_backward", 1, "dy", false, "n+-"),
    ("tanh", 0, "x", false, "n"),
    ("tanh_backward", 0, "x", false, "n"),
    ("tanh_backward", 1, "dy", false, "n+-"),
    ("clip_by_value", 0, "x", false, "n"),
    ("clip_by_value_backward", 0, "x", false, "n"),
    ("clip_by_value_backward", 1, "dy", false, "n+-"),
    ("clip_by_norm", 0, "x", false, "n+-"),
    ("clip_by_rms", 0, "x", false, "n+-"),
    ("clip_rows_by_norm", 0, "x", true, "n+-"),
    ("clip_unitwise", 0, "g", true, "n+-"),
    ("clip_unitwise", 1, "w", true, "n+-"),
    ("check_finite", 0, "x", false, "n+-"),
    ("safe_div", 0, "a", false, "n+-"),
    ("safe_div", 1, "b", false, "n"),
    ("safe_div_backward", 0, "a", false, "n+-"),
    ("safe_div_backward", 1, "b", false, "n"),
    ("safe_div_backward", 2, "g", false, "n+-"),
    ("safe_mul", 0, "a", false, "n+-"),
    ("safe_mul", 1, "b", false, "n+-"),
    ("safe_mul_backward", 0, "a", false, "n+-"),
    ("safe_mul_backward", 1, "b", false, "n+-"),
    ("safe_mul_backward", 2, "g", false, "n+-"),
    ("safe_recip", 0, "x", false, "n"),
    ("safe_recip_backward", 0, "x", false, "n"),
    ("safe_recip_backward", 1, "dy", false, "n+-"),
    ("safe_sqrt", 0, "x", false, "n+"),
    ("safe_sqrt_backward", 0, "x", false, "n"),
    ("safe_sqrt_backward", 1, "dy", false, "n+-"),
    ("safe_rsqrt", 0, "x", false, "n"),
    ("safe_rsqrt_backward", 1, "dy", false, "n+-"),
    ("safe_ln", 0, "x", false, "n+"),
    ("safe_ln_backward", 1, "dy", false, "n+-"),
    ("xlogy", 0, "x", false, "n+-"),
    ("xlogy", 1, "y", false, "n+-"),
    ("xlogy_backward", 0, "x", false, "n+-"),
    ("xlogy_backward", 1, "y", false, "n+-"),
    ("xlogy_backward", 2, "g", false, "n+-"),
    ("xlog1py", 0, "x", false, "n+-"),
    ("xlog1py", 1, "y", false, "n+-"),
    ("xlog1py_backward", 2, "g", false, "n+-"),
    ("safe_pow", 0, "x", false, "n+"),
    ("safe_pow", 1, "y", false, "n-"),
    ("safe_pow_backward", 2, "g", false, "n+-"),
    ("safe_pow_backward", 0, "x", false, "n+"),
    ("atan2", 0, "y", false, "n"),
    ("atan2", 1, "x", false, "n"),
    ("atan2_backward", 0, "y", false, "n"),
    ("atan2_backward", 1, "x", false, "n"),
    ("atan2_backward", 2, "g", false, "n+-"),
    ("l2_norm", 0, "x", false, "n+-"),
    ("l2_norm_backward", 0, "x", false, "n+-"),
    ("sum", 0, "x", false, "n+-"),
    ("dot", 0, "a", false, "n+-"),
    ("dot", 1, "b", false, "n+-"),
    ("dot_backward", 0, "a", false, "n+-"),
    ("dot_backward", 1, "b", false, "n+-"),
    ("matmul", 0, "a", true, "n+-"),
    ("matmul", 1, "b", true, "n+-"),
    ("matmul_with", 0, "a", true, "n+-"),
    ("std_rows", 0, "x", true, "n+-"),
    ("lp_norm_rows, p = 2", 0, "x", true, "n+-"),
    ("lp_norm_rows, p = 3", 0, "x", true, "n+-"),
    ("layer_norm", 0, "x", true, "n+-"),
    ("layer_norm_backward", 0, "x", true, "n+-"),
    ("layer_norm_backward", 1, "dy", true, "n+-"),
    ("rms_norm_backward", 1, "dy", true, "n+-"),
    ("normalize", 0, "x", true, "n+-"),
    ("normalize_backward", 1, "dy", true, "n+-"),
    ("cosine_similarity", 0, "a", true, "n+-"),
    ("cosine_similarity", 1, "b", true, "n+-"),
    ("softmax", 0, "x", true, "n+"),
    ("softmax_with", 0, "x", true, "n+"),
    ("softmax_backward", 1, "dp", true, "n+-"),
    ("log_softmax", 0, "x", true, "n+"),
    ("log_softmax_backward", 1, "dy", true, "n+-"),
    ("logsumexp", 0, "x", true, "n+"),
    ("logsumexp_backward", 0, "x", true, "n+"),
    ("cross_entropy", 0, "logits", true, "n+"),
    ("cross_entropy_backward", 0, "logits", true, "n+"),
    ("softmax_in_place", 0, "x", true, "n+"),
    ("cross_entropy_in_place", 0, "logits", true, "n+"),
    ("soft cross_entropy", 1, "targets", true, "n+-"),
    ("logsumexp_weighted", 0, "x", true, "n+"),
    ("logsumexp_weighted", 1, "b", true, "n+-"),
    ("softmax_entropy", 0, "x", true, "n+"),
    ("softmax_entropy_backward", 0, "x", true, "n+"),
    ("binary_cross_entropy", 0, "logits", false, "n+-"),
    ("binary_cross_entropy", 1, "targets", false, "n+-"),
    ("binary_cross_entropy_backward", 1, "targets", false, "n+-"),
    ("kl_divergence", 0, "p", false, "n+-"),
    ("kl_divergence", 1, "log_q", false, "n+-"),
    ("kl_divergence_backward", 1, "log_q", false, "n+-"),
    ("max_rows", 0, "x", true, "n+"),
    ("min_rows", 0, "x", true, "n-"),
    ("max_rows_backward", 0, "x", true, "n"),
    ("sgd", 0, "w", false, "n+-"),
    ("sgd", 1, "g", false, "n+-"),
    ("adamw", 1, "g", false, "n+-"),
    ("adamw", 2, "m", false, "n+-"),
    ("adam", 1, "g", false, "n+-"),
    ("adam", 2, "m", false, "n+-"),
];

fn every_place<T: Float>() {
    let ops = every_op::<T>();
    for &(name, place, operand, is_matrix, faults) in OPERANDS {
        let (_, run) = ops.iter().find(|op| op.0 == name).expect("the names of every_op");
        for (rows, cols) in [(1, 1), (1, 2), (1, 15), (1, 16), (2, 17), (3, 40), (2, 131)] {
            // Plain numbers between 0.5 and 1, so that everything is read.
            let plain = [1, 2, 3].map(|seed| {
                let x = data::<T>(seed, Kind::Within(0.25), rows * cols);
                x.into_iter().map(|x| x + num(0.75)).collect::<Vec<_>>()
            });
            let g = num(2.0);
            let run_on = |[x, y, z]: &[Vec<T>; 3]| run(Case { rows, cols, x, y, z, g });
            let clean = run_on(&plain);
            assert_eq!(clean.error, None, "{name}");
            for (class, bad) in
                [(Class::Nan, T::nan()), (Class::PosInf, T::infinity()), (Class::NegInf, T::neg_infinity())]
            {
                for at in (0..rows * cols).filter(|at| rows * cols < 100 || at % 5 == 0 || at % cols > cols - 4) {
                    let context = format!("{name}, {operand}[{at}] = {bad} of {rows} x {cols}");
                    let mut operands = plain.clone();
                    operands[place][at] = bad;
                    let outcome = run_on(&operands);
                    // Rows whose target is 0 are ignored.
                    let is_ignored = name.starts_with("cross_entropy") && (at / cols) * 7 % cols == 0;
                    // -inf at a target makes the loss infinite, which is a fault of the result.
                    let is_fault = faults.contains(match class {
                        Class::Nan => 'n',
                        Class::PosInf => '+',
                        Class::NegInf => '-',
                    });
                    if is_ignored {
                        outcome.assert_same(&clean, context);
                        continue;
                    }
                    if !is_fault {
                        let is_passed_in =
                            matches!(&outcome.error, Some(Error::NonFinite(found)) if found.origin == Origin::PassedIn);
                        assert!(!is_passed_in, "{context}: {:?}", outcome.error);
                        continue;
                    }
                    let width = if is_matrix && name.starts_with("matmul") && place == 1 { rows } else { cols };
                    let index = if is_matrix { Index::Cell(at / width, at % width) } else { Index::At(at) };
                    match &outcome.error {
                        Some(Error::NonFinite(found)) => {
                            assert_eq!((found.operand, found.index, found.class), (operand, index, class), "{context}");
                            assert_eq!((found.origin, found.counts.total()), (Origin::PassedIn, 1), "{context}");
                            assert_eq!(found.counts.len, rows * cols, "{context}");
                        }
                        other => panic!("{context}: {other:?}"),
                    }
                    if name.starts_with("clip_by_norm")
                        || name.ends_with("in_place")
                        || [
                            "sgd",
                            "adam",
                            "adamw",
                            "clip_by_value",
                            "clip_by_rms",
                            "clip_rows_by_norm",
                            "clip_unitwise",
                        ]
                        .contains(&name)
                    {
                        // In place: as it was.
                        let len = rows * cols;
                        let kept = |k: usize| operands[k].clone();
                        let want = match name {
                            "sgd" => [kept(0), kept(2)].concat(),
                            "adam" | "adamw" => [kept(0), kept(2)].concat(),
                            _ => kept(0),
                        };
                        assert_same(&context, &outcome.values[..want.len().min(2 * len)], &want);
                    } else if class == Class::Nan && !outcome.values.is_empty() {
                        assert!(outcome.values.iter().any(|x| x.is_nan()), "{context} was swallowed");
                    }
                }
            }
        }
    }
}

#[test]
fn in_every_place() {
    everywhere!(every_place);
}

/// In a map only the lane itself is touched; in a matrix product its row or column; in a row operation its row.
fn neighbours<T: Float>() {
    let (rows, cols) = (5, 37);
    let x = data::<T>(1, Kind::Within(1.0), rows * cols);
    let y = data::<T>(2, Kind::Within(1.0), rows * cols);
    let case = Case { rows, cols, x: &x, y: &y, z: &y, g: num(2.0) };
    for (name, run) in every_op::<T>() {
        let clean = run(case);
        for at in [0, 15, 16, 36, 37, 100, rows * cols - 1] {
            let mut bad = x.clone();
            bad[at] = T::nan();
            let got = run(Case { x: &bad, ..case });
            let touched: Box<dyn Fn(usize) -> bool> = match name {
                "relu" | "tanh" | "relu_backward" | "tanh_backward" | "clip_by_value_backward" => {
                    Box::new(move |i| i == at)
                }
                "softmax" | "log_softmax" => Box::new(move |i| i / cols == at / cols),
                "logsumexp" => Box::new(move |i| i == at / cols),
                "matmul" => Box::new(move |i| i / rows == at / cols),
                _ => continue,
            };
            for i in 0..got.values.len() {
                if touched(i) {
                    assert!(got.values[i].is_nan(), "{name}: NaN at {at} is lost at {i}");
                } else {
                    assert_same(
                        format_args!("{name}, NaN at {at}, element {i}"),
                        &got.values[i..=i],
                        &clean.values[i..=i],
                    );
                }
            }
        }
    }
}

#[test]
fn and_nowhere_else() {
    everywhere!(neighbours);
}

fn counts<T: Float>() {
    let x = nums::<T>(&[1.0, f64::INFINITY, f64::NAN, 2.0, f64::NEG_INFINITY, f64::NAN, 3.0]);
    let mut y = [T::zero(); 7];
    let found = report(tanh_backward(&y.clone(), &x, &mut y));
    assert_eq!((found.operation, found.operand, found.index), ("tanh_backward", "dy", Index::At(1)));
    assert_eq!((found.counts.nan, found.counts.pos_inf, found.counts.neg_inf, found.counts.len), (2, 1, 1, 7));
    let text = "tanh_backward: dy[1] is +Inf, passed in; 4 of 7 elements are not finite";
    assert_eq!(Error::from(found).to_string(), text);
    // The first operand that is at fault is named, and results only if no operand is.
    let found = report(dot(&nums::<T>(&[1.0, f64::NAN]), &nums::<T>(&[f64::NAN, 1.0])));
    assert_eq!((found.operand, found.index), ("a", Index::At(1)));
    // A partial norm knows how many there were, and of which class.
    for (class, bad) in [(Class::Nan, T::nan()), (Class::PosInf, T::infinity()), (Class::NegInf, T::neg_infinity())] {
        let partial = NormPartial::of(&[T::one(), bad, bad]).expect("it is available");
        let found = report(partial.norm());
        assert_eq!((found.class, found.origin, found.counts.total()), (class, Origin::PassedIn, 2));
    }
    // The old C is gone through in parts, and named by its first row.
    let mut c = vec![T::one(); 2 * 600];
    (c[550], c[600 + 3]) = (T::infinity(), T::nan());
    let options = Matmul { beta: num(2.0), ..Matmul::default() };
    let found =
        report(matmul_with(options, mat(&[T::one(); 2], 2, 1), mat(&[T::one(); 600], 1, 600), mat_mut(&mut c, 2, 600)));
    assert_eq!((found.operand, found.index, found.origin), ("c", Index::Cell(0, 550), Origin::PassedIn));
    assert_eq!((found.counts.nan, found.counts.pos_inf, found.counts.len), (1, 1, 1200));
}

#[test]
fn the_report_counts() {
    everywhere!(counts);
}

fn born_here<T: Float>() {
    let max = T::max_value();
    let found = report(sum(&[max, max, T::one()]));
    assert_eq!(
        (found.operand, found.index, found.class, found.origin),
        ("sum", Index::Scalar, Class::PosInf, Origin::Overflow)
    );
    let found = report(dot(&[max, max], &[-max, T::one()]));
    assert_eq!((found.operand, found.class, found.origin), ("dot", Class::NegInf, Origin::Overflow));
    let found = report(l2_norm(&[max, max]));
    assert_eq!((found.operand, found.class, found.origin), ("norm", Class::PosInf, Origin::Overflow));
    let mut y = [T::zero(); 2];
    let found = report(safe_div(&[T::one(), max], &[T::one(), num(-0.5)], &mut y));
    assert_eq!(
        (found.operand, found.index, found.class, found.origin),
        ("q", Index::At(1), Class::NegInf, Origin::Overflow)
    );
    // A default that is not taken has no part in it.
    let unused = Safe { default: T::nan(), eps: T::zero() };
    let found = report(safe_div_with(unused, &[max], &[num(0.5)], &mut y[..1]));
    assert_eq!((found.operand, found.class, found.origin), ("q", Class::PosInf, Origin::Overflow));
    let (mut dy, mut dx) = ([T::zero(); 2], [T::zero(); 2]);
    // Without an upstream gradient a NaN counts, and nothing else.
    let found =
        report(safe_div_backward(&[T::infinity(), T::nan()], &[T::one()], &[T::zero(); 2], &mut dy, &mut dx[..1]));
    assert_eq!((found.operand, found.index, found.class), ("a", Index::At(1), Class::Nan));
    // The sums of other columns are what they are beside one that overflows.
    let small = num::<T>(2.0).powi(-T::BIAS * 3 / 4);
    let found =
        report(safe_div_backward(&[T::one(); 4], &[T::one(), small], &[T::one(); 4], &mut [T::zero(); 4], &mut dx));
    assert_eq!(
        (found.operand, found.index, found.class, found.origin),
        ("db", Index::At(1), Class::NegInf, Origin::Overflow)
    );
    assert_same("db", &dx, &nums::<T>(&[-2.0, f64::NEG_INFINITY]));
    let found =
        report(atan2_backward(&[T::one(), T::from_bits(1)], &[T::one(), T::zero()], &[T::one(); 2], &mut dy, &mut dx));
    assert_eq!(
        (found.operand, found.index, found.class, found.origin),
        ("dx", Index::At(1), Class::NegInf, Origin::Overflow)
    );
    let found = report(safe_mul(&[T::one(), max], &[T::one(), num(-2.0)], &mut y));
    assert_eq!(
        (found.operand, found.index, found.class, found.origin),
        ("p", Index::At(1), Class::NegInf, Origin::Overflow)
    );
    // An infinite operand is no fault, a NaN beside it is.
    let found = report(atan2(&[T::infinity()], &[T::nan()], &mut y[..1]));
    assert_eq!(
        (found.operand, found.index, found.class, found.origin),
        ("x", Index::At(0), Class::Nan, Origin::PassedIn)
    );
    let mut c = [T::zero(); 4];
    let (a, b) = ([T::one(), T::one(), max, max], [T::one(); 4]);
    let found = report(matmul(mat(&a, 2, 2), mat(&b, 2, 2), mat_mut(&mut c, 2, 2)));
    assert_eq!(
        (found.operand, found.index, found.class, found.origin),
        ("c", Index::Cell(1, 0), Class::PosInf, Origin::Overflow)
    );
    assert_eq!((found.counts.total(), found.counts.len), (2, 4));
    for most in [max, max * T::epsilon()] {
        let found = report(log_softmax(mat(&[most, -max], 1, 2), mat_mut(&mut y, 1, 2)));
        assert_eq!(
            (found.operand, found.index, found.class, found.origin),
            ("y", Index::Cell(0, 1), Class::NegInf, Origin::Overflow)
        );
    }
    let found = report(cross_entropy(CrossEntropy::default(), mat(&[max, -max], 1, 2), &[1]));
    assert_eq!((found.operand, found.class, found.origin), ("losses", Class::PosInf, Origin::Overflow));
    let found = report(sum_backward(T::nan(), &mut y));
    assert_eq!((found.operand, found.index, found.origin), ("g", Index::Scalar, Origin::PassedIn));
}

#[test]
fn the_report_says_what_was_born_here() {
    everywhere!(born_here);
}

/// What does not count is not read: NaN there changes nothing and raises nothing.
fn not_read<T: Float>() {
    for len in [1, 5, 16, 33, 130] {
        let (nan, zero, one) = (vec![T::nan(); len], vec![T::zero(); len], vec![T::one(); len]);
        let mut y = nan.clone();
        relu_backward(&zero, &nan, &mut y).expect("dy does not count");
        assert_same("relu", &y, &zero);
        y.fill(T::nan());
        clip_by_value_backward(&vec![num(-3.0); len], T::one(), &nan, &mut y).expect("dy does not count");
        assert_same("clip", &y, &zero);
        let mut other = nan.clone();
        assert_eq!(safe_div(&nan, &zero, &mut y), Ok(len));
        assert_eq!(safe_div_backward(&nan, &zero, &nan, &mut y, &mut other), Ok(len));
        assert_same("division", &[y.clone(), other.clone()].concat(), &zero.repeat(2));
        assert_eq!(atan2_backward(&zero, &zero, &nan, &mut y, &mut other), Ok(len));
        assert_same("angle", &[y.clone(), other.clone()].concat(), &zero.repeat(2));
        assert_eq!(safe_mul(&nan, &zero, &mut y), Ok(len));
        assert_same("product", &y, &zero);
        assert_eq!(safe_mul_backward(&nan, &zero, &nan, &mut y, &mut other), Ok(len));
        assert_same("gradients of a product", &[y.clone(), other].concat(), &zero.repeat(2));
        y.fill(T::nan());
        softmax_backward(mat(&zero, 1, len), mat(&nan, 1, len), mat_mut(&mut y, 1, len)).expect("dp does not count");
        assert_same("softmax", &y, &zero);
        y.fill(T::nan());
        let impossible = vec![T::neg_infinity(); len];
        log_softmax_backward(mat(&impossible, 1, len), mat(&nan, 1, len), mat_mut(&mut y, 1, len))
            .expect("dy does not count");
        assert_same("log-softmax", &y, &zero);

        // One row of three counts.
        let options = CrossEntropy { ignore: Some(1000), reduction: Reduction::Mean, ..CrossEntropy::default() };
        let logits = [&nan[..], &one, &nan].concat();
        let mut dx = nan.repeat(3);
        let loss =
            cross_entropy_with_gradient(options, mat(&logits, 3, len), &[1000, 0, 1000], mat_mut(&mut dx, 3, len));
        let loss = loss.expect("rows that are ignored do not count");
        assert_eq!(loss.count, 1);
        assert!(ulp_error(loss.value, (len as f64).ln()) <= 2.0);
        assert_same("ignored rows", &[&dx[..len], &dx[2 * len..]].concat(), &zero.repeat(2));
    }
}

#[test]
fn what_does_not_count_is_not_read() {
    everywhere!(not_read);
}

/// Sums that overflow on the way to a number that does not.
fn rescues<T: Float>() {
    let max = T::max_value();
    let big = max / num(2.0);
    assert_eq!(sum(&[max, max, -max]), Ok(max));
    assert_eq!(sum(&[&vec![big; 1000][..], &[-big; 999]].concat()), Ok(big));
    assert_eq!(dot(&[max, max, num(3.0)], &[num(4.0), num(-4.0), T::one()]), Ok(num(3.0)));

    for (m, n) in [(1, 1), (3, 5), (14, 40), (70, 66)] {
        for k in [3, 40, 513, 1100] {
            // In each element big terms cancel, within a k-block and across them, and leave a sixteenth of the largest.
            let mut a = vec![T::zero(); m * k];
            a.chunks_exact_mut(k).for_each(|row| {
                row[0] = max;
                row[1] = max;
                row[k - 1] = -max;
                row[k / 2] = if k == 3 { max } else { max / num(16.0) };
            });
            let mut b = vec![T::one(); k * n];
            if k == 3 {
                b[n..2 * n].fill(T::one());
            } else {
                b[n..2 * n].fill(num(-1.0));
                b[..n].fill(num(2.0));
            }
            let want = reference::matmul(mat(&a, m, k), mat(&b, k, n));
            // The documented bound: the magnitudes add up to less than 5 max.
            let bound = Wide::new(max) * Wide::new(5.0 * k as f64) * Wide::new(T::epsilon());
            let is_close = |c: T, want: Wide| (Wide::new(c) - want).abs() <= bound;
            let mut c = vec![T::nan(); m * n];
            matmul(mat(&a, m, k), mat(&b, k, n), mat_mut(&mut c, m, n)).expect("representable");
            for (&c, &want) in c.iter().zip(&want) {
                assert!(is_close(c, want), "{c:e} for {:e}", want.to_f64());
            }
            // beta, and an alpha that brings a product back that is out of range.
            for (alpha, beta, old) in [(1.0, 1.0, 0.5), (1.0, -2.0, 3.0), (2.0_f64.powi(-20), 1.0, 1.0)] {
                let options = Matmul { alpha: num(alpha), beta: num(beta) };
                c.fill(num(old));
                matmul_with(options, mat(&a, m, k), mat(&b, k, n), mat_mut(&mut c, m, n)).expect("representable");
                for (&c, &want) in c.iter().zip(&want) {
                    let want = want * alpha.into() + (beta * old).into();
                    assert!(
                        is_close(c, want),
                        "{m} x {k} x {n}, alpha {alpha}, beta {beta}: {c:e}, {:e}",
                        want.to_f64()
                    );
                }
            }
        }
    }
    // The product is out of range, alpha brings it back.
    let mut c = [T::nan()];
    let options = Matmul { alpha: T::one() / max, beta: T::zero() };
    let a = vec![max; 700];
    matmul_with(options, mat(&a, 1, 700), mat(&a, 700, 1), mat_mut(&mut c, 1, 1)).expect_err("700 max is out of range");
    let tiny = vec![T::min_positive_value(); 700];
    let options = Matmul { alpha: num(2.0), beta: T::zero() };
    matmul_with(options, mat(&a, 1, 700), mat(&tiny, 700, 1), mat_mut(&mut c, 1, 1)).expect("700 times about 4");
    let want = reference::dot(&a, &tiny) * 2.0_f64.into();
    assert!(((want - c[0].into()) / want).abs().to_f64() < 700.0 * common::wide(T::epsilon()));
    // A sum of equal terms that is out of range, and comes back by an old C of the other sign.
    let options = Matmul { alpha: T::one(), beta: T::one() };
    c[0] = -max;
    matmul_with(options, mat(&[max, max], 1, 2), mat(&[T::one(); 2], 2, 1), mat_mut(&mut c, 1, 1)).expect("max");
    assert_same("max + max - max", &c, &[max]);
}

/// Products far out of range cancel, to the last bit, and leave what is small beside them.
fn cancellations<T: Float>() {
    let h = T::max_value() / num(3.0);
    for (b, left) in [([h, num(0.5), -h], 1.0), ([h, num(0.0), -h], 0.0), ([-h, num(3.0), h], 6.0)] {
        let a = [h, num(2.0), h];
        assert_eq!(dot(&a, &b), Ok(num(left)));
        let mut c = [T::nan()];
        matmul(mat(&a, 1, 3), mat(&b, 3, 1), mat_mut(&mut c, 1, 1)).expect("representable");
        assert_same("product", &c, &[num(left)]);
        nanproof::linear(nanproof::Activation::Tanh, mat(&a, 1, 3), mat(&b, 1, 3), None, mat_mut(&mut c, 1, 1))
            .expect("representable");
        let mut want = [T::nan()];
        tanh(&[num(left)], &mut want).expect("finite");
        assert_same("layer", &c, &want);
    }
    assert_eq!(sum(&[h, h, h, h, T::one(), -h, -h, -h, -h]), Ok(T::one()));
}

#[test]
fn overflow_on_the_way_is_undone() {
    everywhere!(rescues);
    everywhere!(cancellations);
}

/// The rescue mends the elements it can and leaves the others, which alone are reported.
fn partial_rescues<T: Float>() {
    let max = T::max_value();
    let (m, k, n) = (70, 3, 70);
    let mut a = nums::<T>(&[1.0, 1.0, 1.0]).repeat(m);
    a[5 * k..6 * k].copy_from_slice(&[max, max, -max]); // mended: max
    a[66 * k..67 * k].copy_from_slice(&[max, max, T::one()]); // infinite
    a[20 * k + 1] = T::nan();
    let b = vec![T::one(); k * n];
    let mut c = vec![T::zero(); m * n];
    let found = report(matmul(mat(&a, m, k), mat(&b, k, n), mat_mut(&mut c, m, n)));
    assert_eq!((found.operand, found.index, found.origin), ("a", Index::Cell(20, 1), Origin::PassedIn));
    let row = |value: T| vec![value; n];
    assert_same("plain", &c[..n], &row(num(3.0)));
    assert_same("mended", &c[5 * n..6 * n], &row(max));
    assert_same("infinite", &c[66 * n..67 * n], &row(T::infinity()));
    assert_same("NaN", &c[20 * n..21 * n], &row(T::nan()));
    a[20 * k + 1] = T::one();
    let found = report(matmul(mat(&a, m, k), mat(&b, k, n), mat_mut(&mut c, m, n)));
    assert_eq!((found.operand, found.index, found.origin), ("c", Index::Cell(66, 0), Origin::Overflow));
    assert_eq!(found.counts.total(), n);
}

#[test]
fn a_rescue_mends_what_it_can() {
    everywhere!(partial_rescues);
}

fn gradient_rescues<T: Float>() {
    let max = T::max_value();
    // dp - sum overflows, p times it does not.
    let p = nums::<T>(&[0.5, 0.5]);
    let mut dx = [T::nan(); 2];
    softmax_backward(mat(&p, 1, 2), mat(&[max, -max], 1, 2), mat_mut(&mut dx, 1, 2)).expect("half of max");
    assert_same("softmax", &dx, &[max / num(2.0), -max / num(2.0)]);
    let p = nums::<T>(&[0.25, 0.75]);
    softmax_backward(mat(&p, 1, 2), mat(&[max, -max], 1, 2), mat_mut(&mut dx, 1, 2)).expect("representable");
    let want = reference::softmax_backward(&p, &[max, -max]);
    dx.iter().zip(want).for_each(|(&dx, want)| assert!(ulp_error(dx, want) <= 4.0));
    // The sum of dy overflows, exp(y) times it does not.
    let y = nums::<T>(&[-20.0, -21.0, -22.0]);
    let mut dx = [T::nan(); 3];
    log_softmax_backward(mat(&y, 1, 3), mat(&[max; 3], 1, 3), mat_mut(&mut dx, 1, 3)).expect("representable");
    let want = reference::log_softmax_backward(&y, &[max; 3]);
    dx.iter().zip(want).for_each(|(&dx, want)| assert!(ulp_error(dx, want) <= 4.0));
    // So does their product, but not what it leaves of dy.
    let (y, dy) = (nums::<T>(&[-0.01, -5.0, -6.0]), [max, max / num(2.0), T::one()]);
    log_softmax_backward(mat(&y, 1, 3), mat(&dy, 1, 3), mat_mut(&mut dx, 1, 3)).expect("representable");
    let want = reference::log_softmax_backward(&y, &dy);
    dx.iter().zip(want).for_each(|(&dx, want)| assert!(ulp_error(dx, want) <= 8.0, "{dx:e} for {:e}", want.to_f64()));
    // The norm overflows; its gradient and the clipping do not mind.
    let mut dx = [T::nan(); 4];
    l2_norm_backward(&[max; 4], T::one(), &mut dx).expect("0.5");
    assert_same("norm", &dx, &[num(0.5); 4]);
    let mut x = [max; 4];
    let clip = clip_by_norm(&mut x, num(2.0)).expect("1");
    assert_same("clip", &x, &[T::one(); 4]);
    assert!(clip.norm.is_infinite() && clip.clipped);
    // The terms of a sum over the rows, which cancel.
    let half = num::<T>(2.0).powi(T::BIAS);
    let (a, mut da, mut db) = ([half * num(1.5), half * num(-1.25)], [T::nan(); 2], [T::nan()]);
    safe_div_backward(&a, &[num(0.5)], &[T::one(); 2], &mut da, &mut db).expect("representable");
    assert_same("division", &[da[0], da[1], db[0]], &[num(2.0), num(2.0), -half]);
    // The mean of losses whose sum overflows.
    let big = max / num(2.0);
    let logits = [T::zero(), big].repeat(5);
    let loss = cross_entropy(CrossEntropy::default(), mat(&logits, 5, 2), &[0; 5]).expect("the mean is one of them");
    assert!(ulp_error(loss.value, big) <= 2.0);
}

#[test]
fn gradients_that_overflow_on_the_way() {
    everywhere!(gradient_rescues);
}

/// `-inf` logits are no fault, wherever they stand.
fn impossible_events<T: Float>() {
    for len in [2, 16, 17, 100] {
        for at in 0..len {
            let mut x = data::<T>(at as u64, Kind::Within(3.0), len);
            x[at] = T::neg_infinity();
            let (mut p, mut y, mut lse, mut dx) =
                (vec![T::nan(); len], vec![T::nan(); len], [T::nan()], vec![T::nan(); len]);
            softmax(mat(&x, 1, len), mat_mut(&mut p, 1, len)).expect("no fault");
            log_softmax(mat(&x, 1, len), mat_mut(&mut y, 1, len)).expect("no fault");
            logsumexp(mat(&x, 1, len), &mut lse).expect("no fault");
            logsumexp_backward(mat(&x, 1, len), &[T::one()], mat_mut(&mut dx, 1, len)).expect("no fault");
            assert_same("no probability", &[p[at], y[at], dx[at]], &[T::zero(), T::neg_infinity(), T::zero()]);
            let target = [(at + 1) as u32 % len as u32];
            cross_entropy_backward(
                CrossEntropy::default(),
                mat(&x, 1, len),
                &target,
                T::one(),
                mat_mut(&mut dx, 1, len),
            )
            .expect("no fault");
            assert_same("no gradient", &dx[at..=at], &[T::zero()]);
        }
    }
}

#[test]
fn impossible_events_are_no_faults() {
    everywhere!(impossible_events);
}

fn infinite_operands<T: Float>() {
    let x = nums::<T>(&[f64::INFINITY, f64::NEG_INFINITY]);
    let mut y = [T::nan(); 2];
    tanh(&x, &mut y).expect("1 and -1");
    assert_same("tanh", &y, &nums::<T>(&[1.0, -1.0]));
    relu(&x[1..], &mut y[1..]).expect("0");
    assert_same("relu", &y[1..], &[T::zero()]);
    let mut clipped = x.clone();
    assert_eq!(clip_by_value(&mut clipped, num(3.0)), Ok(2));
    assert_same("clip", &clipped, &nums::<T>(&[3.0, -3.0]));
    report(clip_by_value(&mut x.clone(), T::infinity()));
    safe_div(&[T::one(); 2], &x, &mut y).expect("zeros");
    assert_same("division", &y, &nums::<T>(&[0.0, -0.0]));
    atan2(&[T::one(), T::neg_infinity()], &x, &mut y).expect("angles");
    assert_same("angles", &y, &nums::<T>(&[0.0, f64::NEG_INFINITY.atan2(f64::NEG_INFINITY)]));
    let mut other = [T::nan(); 2];
    atan2_backward(&[T::one(), T::neg_infinity()], &x, &[T::one(); 2], &mut y, &mut other).expect("zeros");
    assert_same("gradients of angles", &[y, other].concat(), &[T::zero(); 4]);
}

#[test]
fn infinities_that_are_no_faults() {
    everywhere!(infinite_operands);
}

/// A call that must not write to its two outputs.
type Call<'a, T> = dyn Fn(&mut [T], &mut [T]) -> nanproof::Result<()> + 'a;

/// Shapes and arguments are refused before anything is written.
fn refused<T: Float>() {
    let (three, four) = ([T::one(); 3], [T::one(); 4]);
    let old = nums::<T>(&[7.0, 8.0, 9.0]);
    let check = |name: &str, f: &Call<T>| {
        let (mut p, mut q) = (old.clone(), old.clone());
        match f(&mut p, &mut q) {
            Err(Error::Shape { .. } | Error::Argument { .. }) => {}
            other => panic!("{name}: {other:?}"),
        }
        assert_same(name, &[p, q].concat(), &old.repeat(2));
    };
    check("relu", &|y, _| relu(&four, y));
    check("relu_backward", &|y, _| relu_backward(&three, &four, y));
    check("tanh", &|y, _| tanh(&four, y));
    check("tanh_backward", &|y, _| tanh_backward(&four, &four, y));
    check("clip_by_value_backward", &|y, _| clip_by_value_backward(&three, T::one(), &four, y));
    check("clip_by_value_backward", &|y, _| clip_by_value_backward(&three, -T::one(), &three, y));
    check("clip_by_value", &|x, _| clip_by_value(x, T::nan()).map(drop));
    check("clip_by_norm", &|x, _| clip_by_norm(x, -T::one()).map(drop));
    check("clip_by_rms", &|x, _| clip_by_rms(x, T::nan()).map(drop));
    check("clip_rows_by_norm", &|x, norms| clip_rows_by_norm(mat_mut(x, 3, 1), -T::one(), norms).map(drop));
    check("clip_rows_by_norm", &|x, norms| clip_rows_by_norm(mat_mut(x, 1, 3), T::one(), norms).map(drop));
    check("clip_unitwise", &|x, _| clip_unitwise(mat(&three, 3, 1), mat_mut(x, 3, 1), -T::one(), T::one()).map(drop));
    check("clip_unitwise", &|x, _| clip_unitwise(mat(&three, 3, 1), mat_mut(x, 3, 1), T::one(), T::nan()).map(drop));
    check("clip_unitwise", &|x, _| clip_unitwise(mat(&three, 1, 3), mat_mut(x, 3, 1), T::one(), T::one()).map(drop));
    check("clip_by_global_norm_with", &|x, norms| {
        clip_by_global_norm_with(Clipping::default(), &mut [x], T::one(), Some(norms)).map(drop)
    });
    check("clip_by_global_norm_with", &|x, norms| {
        clip_by_global_norm_with(Clipping::default(), &mut [x], -T::one(), Some(&mut norms[..1])).map(drop)
    });
    for loss_scale in nums::<T>(&[0.0, -1.0, f64::NAN, f64::INFINITY]) {
        check("unscale", &|x, _| unscale(&mut [x], loss_scale).map(drop));
    }
    check("NormPartial::clip", &|x, _| NormPartial::default().clip(&mut [x], T::nan()).map(drop));
    for bytes in [&[][..], &[0; 7], &[0; 10_000]] {
        check("NormPartial::from_bytes", &|_, _| NormPartial::<T>::from_bytes(bytes).map(drop));
    }
    for eps in [T::zero(), T::min_positive_value() / num(2.0), T::nan(), T::infinity()] {
        check("adam", &|w, m| Adam { eps, ..Adam::default() }.step(1, w, &three, m, &mut three.clone()));
    }
    check("adam", &|w, m| Adam::default().step(0, w, &three, m, &mut three.clone()));
    check("adam", &|w, m| Adam::default().step(1, w, &four, m, &mut three.clone()));
    let sgd = Sgd { learning_rate: T::one(), momentum: T::one(), weight_decay: T::zero() };
    check("sgd", &|w, v| sgd.step(w, &three, v));
    check("safe_div", &|q, _| safe_div(&three, &four, q).map(drop));
    check("safe_mul", &|p, _| safe_mul(&three, &four, p).map(drop));
    check("safe_mul_backward", &|p, q| safe_mul_backward(&three, &three, &three, p, &mut q[1..]).map(drop));
    check("atan2", &|angle, _| atan2(&three, &four, angle));
    check("atan2", &|angle, _| atan2(&four, &four, angle));
    check("atan2_backward", &|p, q| atan2_backward(&three, &three, &four, p, q).map(drop));
    check("atan2_backward", &|p, q| atan2_backward(&three, &three, &three, p, &mut q[1..]).map(drop));
    check("safe_div_backward", &|p, q| safe_div_backward(&three, &three, &four, p, q).map(drop));
    check("safe_div_backward", &|p, q| safe_div_backward(&three, &three, &three, p, &mut q[1..]).map(drop));
    let safe = Safe::default();
    for eps in nums::<T>(&[-1.0, f64::NAN, f64::INFINITY]) {
        let bad = Safe { eps, ..safe };
        check("safe_div_with", &|q, _| safe_div_with(bad, &three, &three, q).map(drop));
        check("safe_ln", &|q, _| safe_ln(bad, &three, q).map(drop));
        check("safe_sqrt_backward", &|q, _| safe_sqrt_backward(bad, &three, &three, q).map(drop));
        check("safe_pow", &|q, _| safe_pow(bad, &three, &three, q).map(drop));
    }
    check("safe_recip", &|q, _| safe_recip(safe, &four, q).map(drop));
    check("safe_rsqrt_backward", &|q, _| safe_rsqrt_backward(safe, &three, &four, q).map(drop));
    check("xlogy", &|z, _| xlogy(&three, &four[..2], z).map(drop));
    check("xlogy", &|z, _| xlogy(&three, &[], z).map(drop));
    check("xlog1py_backward", &|p, q| xlog1py_backward(&three, &four[..1], &three, p, q).map(drop));
    check("safe_pow_backward", &|p, q| safe_pow_backward(safe, &three, &three, &four, p, q).map(drop));
    check("l2_norm_backward", &|dx, _| l2_norm_backward(&four, T::one(), dx));
    check("dot_backward", &|p, q| dot_backward(&three, &three, T::one(), p, &mut q[1..]));
    check("dot_backward", &|p, q| dot_backward(&three, &four, T::one(), p, q));
    assert!(matches!(dot(&three, &four), Err(Error::Shape { .. })));
    check("softmax", &|y, _| softmax(mat(&four, 2, 2), mat_mut(y, 1, 3)).map(drop));
    check("softmax_backward", &|y, _| softmax_backward(mat(&three, 1, 3), mat(&three, 3, 1), mat_mut(y, 1, 3)));
    check("log_softmax", &|y, _| log_softmax(mat(&three, 3, 1), mat_mut(y, 1, 3)).map(drop));
    check("log_softmax_backward", &|y, _| log_softmax_backward(mat(&three, 3, 1), mat(&three, 1, 3), mat_mut(y, 1, 3)));
    check("logsumexp", &|y, _| logsumexp(mat(&three, 1, 3), y));
    check("logsumexp_backward", &|y, _| logsumexp_backward(mat(&three, 1, 3), &three, mat_mut(y, 1, 3)));
    let options = CrossEntropy { ignore: Some(9), reduction: Reduction::Mean, ..CrossEntropy::default() };
    for targets in [&[0, 1][..], &[3], &[], &[8]] {
        check("cross_entropy_backward", &|y, _| {
            cross_entropy_backward(options, mat(&three, 1, 3), targets, T::one(), mat_mut(y, 1, 3))
        });
    }
    check("cross_entropy_backward", &|y, _| {
        cross_entropy_backward(options, mat(&three, 1, 3), &[0], T::one(), mat_mut(y, 3, 1))
    });
    check("matmul", &|y, _| matmul(mat(&three, 1, 3), mat(&four, 2, 2), mat_mut(y, 1, 3)));
    check("matmul", &|y, _| matmul(mat(&three, 1, 3), mat(&three, 3, 1), mat_mut(y, 1, 3)));
    for (alpha, beta) in [(T::nan(), T::zero()), (T::one(), T::infinity())] {
        check("matmul_with", &|y, _| {
            matmul_with(Matmul { alpha, beta }, mat(&three, 3, 1), mat(&three[..1], 1, 1), mat_mut(y, 3, 1))
        });
    }
    check("matmul_backward", &|p, q| {
        matmul_backward(
            mat(&three, 1, 3),
            mat(&three, 3, 1),
            mat(&three[..1], 1, 1),
            mat_mut(p, 1, 3),
            mat_mut(q, 1, 3),
        )
    });
    assert!(matches!(MatRef::new(&three, 2, 2), Err(Error::Shape { .. })));
    assert!(matches!(MatRef::new(&three, usize::MAX, usize::MAX), Err(Error::Shape { .. })));
    assert!(matches!(MatRef::with_strides(&three, 2, 2, usize::MAX, 1), Err(Error::Shape { .. })));
    assert!(matches!(MatMut::with_strides(&mut [T::one(); 9], 2, 3, 1, 1), Err(Error::Argument { .. })));
}

#[test]
fn refused_before_anything_is_written() {
    everywhere!(refused);
}

/// Each policy for gradients that are not finite: what is written and what is told.
fn policies<T: Float>() {
    let (mut a, mut b) = (vec![num::<T>(3.0); 40], nums::<T>(&[4.0, f64::INFINITY, 0.0, f64::NAN]));
    let old = [&a[..], &b].concat();
    for max_norm in nums::<T>(&[0.0, 1.0, f64::INFINITY]) {
        let mut call = |on_fault| {
            a.fill(num(3.0));
            b.copy_from_slice(&nums::<T>(&[4.0, f64::INFINITY, 0.0, f64::NAN]));
            let options = Clipping { on_fault, ..Clipping::default() };
            let mut norms = [T::zero(); 2];
            let result = clip_by_global_norm_with(options, &mut [&mut a, &mut b], max_norm, Some(&mut norms));
            (result, [&a[..], &b].concat(), norms)
        };
        let (result, values, norms) = call(OnFault::Refuse);
        let found = report(result);
        assert_eq!((found.index, found.class, found.counts.total()), (Index::Tensor(1, 1), Class::PosInf, 2));
        assert_same("refused", &values, &old);
        assert!(norms[0].is_finite() && norms[1].is_nan());

        let (result, values, _) = call(OnFault::Skip);
        let clip = result.expect("skipped");
        assert_eq!((clip.fault, clip.clipped, clip.scale), (Some(found), false, T::one()));
        assert!(clip.norm.is_nan());
        assert_same("skipped", &values, &old);

        let (result, values, norms) = call(OnFault::Zero);
        let clip = result.expect("zeroed");
        let mut want = old.iter().map(|&x| if x.is_finite() { x } else { T::zero() }).collect::<Vec<_>>();
        let alone = clip_by_norm(&mut want, max_norm).expect("finite");
        assert_eq!((clip.fault, clip.clipped, norms[1]), (Some(found), alone.clipped, num(4.0)));
        assert_same("zeroed", &values, &want);

        let (result, values, _) = call(OnFault::Scale);
        assert_eq!(result.expect("scaled").fault, Some(found));
        assert!(values.iter().all(|x| x.is_nan()), "the norm is NaN");
    }
    // Without a NaN the norm is infinite, and finite elements become 0.
    let mut x = nums::<T>(&[1.0, f64::INFINITY]);
    let options = Clipping { on_fault: OnFault::Scale, ..Clipping::default() };
    clip_by_global_norm_with(options, &mut [&mut x], T::one(), None).expect("scaled");
    assert_same("scaled", &x, &nums::<T>(&[0.0, f64::NAN]));
}

#[test]
fn policies_for_gradients_that_are_not_finite() {
    everywhere!(policies);
}

/// Zero bad quotients, too; what clipping takes back is none.
fn quotients<T: Float>() {
    let max = T::max_value();
    let options = Clipping { loss_scale: num(0.5), on_fault: OnFault::Zero };
    let mut x = [max, T::one()];
    let clip = clip_by_global_norm_with(options, &mut [&mut x], T::infinity(), None).expect("zeroed");
    assert_eq!(clip.fault.map(|fault| (fault.index, fault.origin)), Some((Index::Tensor(0, 0), Origin::Overflow)));
    assert_same("zeroed", &x, &nums::<T>(&[0.0, 2.0]));
    let mut x = [max, T::zero()];
    let clip = clip_by_global_norm_with(options, &mut [&mut x], T::one(), None).expect("clipped");
    assert!(clip.fault.is_none() && clip.norm.is_infinite());
    assert_same("clipped", &x, &nums::<T>(&[1.0, 0.0]));
}

#[test]
fn quotients_that_overflow() {
    everywhere!(quotients);
}

/// A step of an optimiser by the gradient: `w`, `g`, and two operands that are kept.
type Step<'a, T> = dyn Fn(&mut [T], &[T], &mut [T], &mut [T]) -> nanproof::Result<()> + 'a;

/// Steps that overflow by their operands or, beside small ones, by their settings: nothing is written.
fn overflowing_steps<T: Float>() {
    // A power of two so many sixteenths of the way to the end of the range. Operands up to five are small.
    let big = |sixteenths: i32| num::<T>(2.0).powi(T::BIAS * sixteenths / 16);
    let (zero, one) = (T::zero(), T::one());
    let check = |name: &str, [w, m, v, g]: [T; 4], step: &Step<T>| {
        let (mut w, mut m, mut v) = ([one, w, one], [zero, m, zero], [zero, v, zero]);
        let old = [w, m, v].concat();
        let found = report(step(&mut w, &[zero, g, zero], &mut m, &mut v));
        assert_eq!((found.index, found.origin), (Index::At(1), Origin::Overflow), "{name}");
        assert_same(name, &[w, m, v].concat(), &old);
    };
    for (name, operands, learning_rate, weight_decay) in [
        ("weight, of the gradient", [one, zero, one, big(5)], big(12), zero),
        ("weight, of the velocity", [one, zero, big(5), zero], big(12), zero),
        ("velocity, of the weight", [big(5), zero, one, zero], one, big(12)),
        ("weight, of the decay", [big(5), zero, one, zero], big(6), big(6)),
    ] {
        let sgd = Sgd { learning_rate, momentum: num(0.9), weight_decay };
        check(name, operands, &|w, g, _, v| sgd.step(w, g, v));
    }
    let adam = Adam::<T>::default();
    let adamw = AdamW::<T> { weight_decay: zero, ..AdamW::default() };
    for (name, operands, settings) in [
        ("mean square, of the gradient", [one, zero, zero, big(9)], adam),
        ("mean square, of the decay", [big(5), zero, zero, zero], Adam { weight_decay: big(4), ..adam }),
        (
            "weight, of the mean",
            [one, one, zero, zero],
            Adam { eps: T::min_positive_value(), learning_rate: one, ..adam },
        ),
    ] {
        check(name, operands, &|w, g, m, v| settings.step(1, w, g, m, v));
    }
    for (name, operands, settings) in [
        (
            "weight, of the decay",
            [big(5), zero, zero, zero],
            AdamW { learning_rate: big(11), weight_decay: big(1), eps: big(8), ..adamw },
        ),
        ("weight, at the rate", [one, big(5), zero, zero], AdamW { learning_rate: big(12), eps: one, ..adamw }),
        (
            "weight, of a large one",
            [big(15), zero, zero, zero],
            AdamW { learning_rate: one, weight_decay: big(2), ..adamw },
        ),
        ("weight, of a large mean", [one, big(15), zero, zero], AdamW { learning_rate: big(1), eps: big(-1), ..adamw }),
    ] {
        check(name, operands, &|w, g, m, v| settings.step(1, w, g, m, v));
    }
}

#[test]
fn steps_that_overflow() {
    everywhere!(overflowing_steps);
}

/// No tensors, empty ones, no rows, no columns.
fn nothing<T: Float>() {
    let none = Clip::<T>::clone(&clip_by_norm(&mut [], T::one()).expect("0"));
    assert_eq!((none.norm, none.clipped), (T::zero(), false));
    assert_eq!(clip_by_global_norm::<T>(&mut [], T::zero()), Ok(none));
    assert_eq!(clip_by_global_norm::<T>(&mut [&mut [], &mut []], T::one()), Ok(none));
    assert_eq!(clip_by_rms::<T>(&mut [], T::one()), Ok(none));
    assert_eq!(unscale::<T>(&mut [], T::one()), Ok(none));
    assert_eq!(clip_rows_by_norm(mat_mut::<T>(&mut [], 0, 3), T::one(), &mut []), Ok(0));
    assert_eq!(clip_rows_by_norm(mat_mut::<T>(&mut [], 2, 0), T::zero(), &mut [T::one(); 2]), Ok(0));
    assert_eq!(clip_unitwise(mat::<T>(&[], 2, 0), mat_mut(&mut [], 2, 0), T::one(), T::zero()), Ok(0));
    assert_eq!(check_finite::<T>(&[]), Ok(()));
    assert_eq!(NormPartial::<T>::of(&[]), Ok(NormPartial::default()));
    assert_eq!(Adam::default().step(1, &mut [] as &mut [T], &[], &mut [], &mut []), Ok(()));
}

#[test]
fn nothing_at_all() {
    everywhere!(nothing);
}

/// Rows without elements need no memory: there may be any number of them, and nobody goes through them.
fn endless_rows<T: Float>() {
    let rows = usize::MAX;
    let x = mat::<T>(&[], rows, 0);
    macro_rules! y {
        () => {
            mat_mut::<T>(&mut [], rows, 0)
        };
    }
    let options = nanproof::Softmax::default();
    assert_eq!(softmax(x, y!()), Ok(0));
    assert_eq!(nanproof::softmax_with(options, x, y!()), Ok(0));
    assert_eq!(nanproof::softmax_in_place(options, y!()), Ok(0));
    assert_eq!(softmax_backward(x, x, y!()), Ok(()));
    assert_eq!(log_softmax(x, y!()), Ok(0));
    assert_eq!(log_softmax_backward(x, x, y!()), Ok(()));
    assert_eq!(nanproof::layer_norm(nanproof::LayerNorm::default(), x, None, None, y!()), Ok(()));
    assert_eq!(nanproof::rms_norm(nanproof::RmsNorm::default(), x, None, y!()), Ok(()));
    assert_eq!(nanproof::normalize(T::one(), x, y!()), Ok(()));
    assert_eq!(clip_unitwise(x, y!(), T::one(), T::zero()), Ok(0));
    assert!(cross_entropy(CrossEntropy::default(), x, nanproof::Targets::Probabilities(x)).is_err());
    let stack = nanproof::BatchRef::<T>::new(&[], rows, 0, 0).expect("empty");
    let products = nanproof::BatchMut::<T>::new(&mut [], rows, 0, 0).expect("empty");
    assert_eq!(nanproof::matmul_batched(stack, stack, products), Ok(()));
    assert_eq!(matmul(mat::<T>(&[], rows, 0), mat(&[], 0, 0), y!()), Ok(()));
    assert_eq!(matmul(mat::<T>(&[], 0, rows), mat(&[], rows, 0), mat_mut(&mut [], 0, 0)), Ok(()));
}

/// Nor does anyone need columns that no row has.
fn endless_columns<T: Float>() {
    let cols = usize::MAX;
    let x = mat::<T>(&[], 0, cols);
    macro_rules! y {
        () => {
            mat_mut::<T>(&mut [], 0, cols)
        };
    }
    assert_eq!(softmax(x, y!()), Ok(0));
    assert_eq!(softmax_backward(x, x, y!()), Ok(()));
    assert_eq!(log_softmax_backward(x, x, y!()), Ok(()));
    assert_eq!(logsumexp(x, &mut []), Ok(()));
    assert_eq!(logsumexp_backward(x, &[], y!()), Ok(()));
    assert_eq!(nanproof::mean_rows(x, &mut []), Ok(()));
    assert_eq!(nanproof::mean_rows_backward(&[], y!()), Ok(()));
    assert_eq!(nanproof::max_rows(x, &mut []), Ok(()));
    assert_eq!(nanproof::max_rows_backward(x, &[], y!()), Ok(()));
    assert_eq!(nanproof::layer_norm(nanproof::LayerNorm::default(), x, None, None, y!()), Ok(()));
    assert_eq!(nanproof::normalize_backward(T::one(), x, x, y!()), Ok(()));
    assert_eq!(nanproof::cosine_similarity(x, x, &mut []), Ok(()));
    assert_eq!(nanproof::cosine_similarity_backward(x, x, &[], y!(), y!()), Ok(()));
    assert_eq!(nanproof::lp_norm_rows(num(3.0), x, &mut []), Ok(()));
    assert_eq!(nanproof::lp_norm_rows_backward(num(3.0), x, &[], y!()), Ok(()));
    assert_eq!(nanproof::softmax_entropy_backward(x, &[], y!()), Ok(()));
    assert_eq!(clip_unitwise(x, y!(), T::one(), T::zero()), Ok(0));
    assert_eq!(clip_rows_by_norm(y!(), T::one(), &mut []), Ok(0));
    assert!(cross_entropy(CrossEntropy::default(), x, &[]).is_ok_and(|loss| loss.count == 0));
    assert!(cross_entropy_with_gradient(CrossEntropy::default(), x, &[], y!()).is_ok());
    assert_eq!(matmul(mat::<T>(&[], 0, 0), x, y!()), Ok(()));
    assert_eq!(matmul_backward(mat::<T>(&[], 0, 0), x, x, mat_mut(&mut [], 0, 0), y!()), Ok(()));
}

#[test]
fn rows_and_columns_without_end() {
    everywhere!(endless_rows);
    everywhere!(endless_columns);
}

/// Growth, the cap, backing off, the bottom, and what is no overflow.
fn loss_scale<T: Float>() {
    let start =
        DynamicLossScale::<T> { interval: 3, smallest: num(0.5), largest: num(1e5), ..DynamicLossScale::default() };
    let mut state = start;
    let good = unscale(&mut [&mut [T::one()]], T::one());
    let scales = (0..9).map(|_| {
        assert_eq!(state.update(&good), Ok(LossStep::Take));
        state.scale
    });
    let growing = [65536.0, 65536.0, 1e5, 1e5, 1e5, 1e5, 1e5, 1e5, 1e5];
    assert_same("capped", &scales.collect::<Vec<_>>(), &nums::<T>(&growing));

    let overflow = unscale(&mut [&mut [T::neg_infinity()]], T::one());
    let mut last = state;
    while state.scale > state.smallest {
        assert!(matches!(state.update(&overflow), Ok(LossStep::Skip(found)) if found.counts.neg_inf == 1));
        assert!(state.steps == 0 && state.scale < last.scale && state.scale >= state.smallest);
        last = state;
    }
    assert!(matches!(state.update(&overflow), Err(Error::LossScale(_))));
    assert_eq!(state, last);

    // A NaN is a fault, with an infinity an overflow; a report that came as a value counts like an error.
    let mut state = start;
    assert!(matches!(state.update(&unscale(&mut [&mut [T::nan()]], T::one())), Err(Error::NonFinite(_))));
    assert_eq!(state, start);
    let skip = Clipping { on_fault: OnFault::Skip, ..Clipping::default() };
    let both = clip_by_global_norm_with(skip, &mut [&mut [T::nan(), T::infinity()]], T::one(), None);
    assert!(matches!(state.update(&both), Ok(LossStep::Skip(found)) if found.counts.nan == 1));
    assert!(state.scale == num(32768.0));
    let refused = clip_by_norm(&mut [T::one()], T::nan());
    assert_eq!(state.update(&refused).map(|_| ()), refused.map(|_| ()));

    let broken = [
        DynamicLossScale { scale: T::nan(), ..start },
        DynamicLossScale { scale: T::infinity(), ..start },
        DynamicLossScale { growth: T::one(), ..start },
        DynamicLossScale { backoff: T::one(), ..start },
        DynamicLossScale { backoff: T::nan(), ..start },
        DynamicLossScale { interval: 0, ..start },
        DynamicLossScale { smallest: T::zero(), ..start },
        DynamicLossScale { largest: T::infinity(), ..start },
    ];
    for mut state in broken {
        assert!(matches!(state.update(&good), Err(Error::Argument { .. })), "{state:?}");
    }
}

#[test]
fn the_loss_scale() {
    everywhere!(loss_scale);
}

#[cfg(feature = "serde")]
#[test]
fn the_loss_scale_is_restored() {
    let state = DynamicLossScale::<f32> { steps: 7, scale: 3.0, ..DynamicLossScale::default() };
    let text = serde_json::to_string(&state).expect("a state is text");
    assert_eq!(serde_json::from_str::<DynamicLossScale<f32>>(&text).expect("the same text"), state);
}

/// No operation panics, whatever the bits.
fn any_bits<T: Float>() {
    for (_, run) in every_op::<T>() {
        for seed in 0..30 {
            for (rows, cols) in [(1, 1), (2, 9), (3, 35), (1, 0), (0, 3), (0, 0)] {
                let [x, y, z] = [0, 1, 2].map(|k| data::<T>(seed * 3 + k, Kind::Bits, rows * cols));
                let g = data::<T>(seed, Kind::Bits, 1)[0];
                run(Case { rows, cols, x: &x, y: &y, z: &z, g });
            }
        }
    }
}

#[test]
fn nothing_panics() {
    everywhere!(any_bits);
}
