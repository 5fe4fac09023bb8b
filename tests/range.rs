//! Steps on the way that leave the range of the type, or its normal numbers, where the result does not; and what reports
//! say where it does.

use nanproof::{
    Adam, AdamW, Class, Error, Float, GradientFlag, GradientLog, Index, MatMut, NonFinite, Origin, Result, Safe, Sgd,
    clip_by_norm, clip_by_rms, clip_rows_by_norm, lp_norm_backward, safe_div_backward, safe_mul_backward,
    safe_pow_backward, xlogy_backward,
};

#[track_caller]
fn report<T: std::fmt::Debug>(result: Result<T>) -> NonFinite {
    match result {
        Err(Error::NonFinite(report)) => *report,
        other => panic!("not reported: {other:?}"),
    }
}

fn num<T: Float>(x: f64) -> T {
    T::from(x).unwrap()
}

#[track_caller]
fn assert_near<T: Float>(got: T, want: f64) {
    let error = (got / num(want) - T::one()).abs();
    assert!(error <= num::<T>(4.0) * T::epsilon(), "{got:e} and not {want:e}");
}

/// Half the exponent range of a type: the product of two such numbers overflows.
fn large<T: Float>() -> T {
    T::max_value().sqrt() * num(1024.0)
}

// --- The gradient log ------------------------------------------------------------------------------------------------

#[test]
fn an_update_of_zeros_to_what_is_not_finite_is_flagged() {
    let mut log = GradientLog::default();
    let record = log.record_update(0, "bias", &[0.0_f32, 0.0], &[f32::NAN, 1.0]).unwrap();
    assert!(record.update_ratio.is_some_and(f64::is_nan));
    assert_eq!(record.flags, [GradientFlag::NotFinite(1)]);
    let record = log.record_update(1, "bias", &[0.0_f32, 0.0], &[f32::INFINITY, -f32::INFINITY]).unwrap();
    assert!(record.update_ratio.is_some_and(f64::is_nan));
    assert_eq!(record.flags, [GradientFlag::NotFinite(2)]);
    let record = log.record_update(2, "bias", &[0.0_f32, 0.0], &[1.0, 1.0]).unwrap();
    assert_eq!((record.update_ratio, record.flags.len()), (None, 0));
    let record = log.record_update(3, "bias", &[f32::INFINITY, 1.0], &[1.0, 1.0]).unwrap();
    assert!(record.update_ratio.is_some_and(f64::is_nan));
    assert_eq!(record.flags, [GradientFlag::NotFinite(1)]);
}

#[test]
fn an_update_ratio_beyond_f64_is_too_large_and_not_nan() {
    let mut log = GradientLog::default();
    let record = log.record_update(0, "w", &[1e-300], &[1e300]).unwrap();
    assert_eq!(record.update_ratio, Some(f64::INFINITY));
    assert_eq!(record.flags, [GradientFlag::UpdateTooLarge(f64::INFINITY)]);
    let record = log.record_update(1, "w", &[f64::MAX], &[-f64::MAX]).unwrap();
    assert_eq!(record.update_ratio, Some(2.0));
    let mut log = GradientLog::default();
    let record = log.record_update(0, "w", &[1e300, 1e-100], &[1e300, 2e-100]).unwrap();
    assert_eq!(record.flags, [GradientFlag::UpdateTooSmall(f64::from_bits(1))]);
    let record = log.record_update(1, "w", &[1e300, 1e-100], &[1e300, 1e-100]).unwrap();
    assert_eq!((record.update_ratio, record.flags.len()), (Some(0.0), 0));
}

// --- Gradients of powers ---------------------------------------------------------------------------------------------

/// `x^y` is flat at 0 for `y > 1`; no number times 0 is no number.
fn an_upstream_gradient_passes_a_flat_power<T: Float>() {
    let (nan, inf) = (T::nan(), T::infinity());
    for y in [num(2.0), num(1.5), inf] {
        for g in [nan, inf, -inf] {
            let (mut dx, mut dy) = ([T::one(); 2], [T::one(); 2]);
            let x = [T::zero(), -T::zero()];
            let found = report(safe_pow_backward(Safe::default(), &x, &[y; 2], &[g; 2], &mut dx, &mut dy));
            let operand = if y.is_finite() { "g" } else { "y" };
            assert_eq!((found.operand, found.origin), (operand, Origin::PassedIn), "{y:e}, {g:e}");
            assert!(
                dx.iter().all(|dx| dx.is_nan()) && dy.iter().all(|dy| dy.is_zero()),
                "{y:e}, {g:e}: {dx:?}, {dy:?}"
            );
        }
    }
    // A power of order 0 is constant, and reads neither.
    let (mut dx, mut dy) = ([T::one(); 1], [T::one(); 1]);
    safe_pow_backward(Safe::default(), &[T::zero()], &[T::zero()], &[nan], &mut dx, &mut dy).unwrap();
    assert!(dx[0].is_zero() && dy[0].is_zero());
    for g in [T::one(), -T::one(), T::zero()] {
        safe_pow_backward(Safe::default(), &[T::zero()], &[num(2.0)], &[g], &mut dx, &mut dy).unwrap();
        assert_eq!((dx[0].to_bits(), dy[0].to_bits()), (0, 0));
    }
}

#[test]
fn an_upstream_gradient_passes_a_flat_power_of_either_type() {
    an_upstream_gradient_passes_a_flat_power::<f32>();
    an_upstream_gradient_passes_a_flat_power::<f64>();
}

#[test]
fn an_overflow_beside_a_pole_is_an_overflow() {
    // One exponent for all: the second row is at the pole of another.
    let (mut dx, mut dy) = ([0.0_f32; 2], [0.0]);
    let found = report(safe_pow_backward(Safe::default(), &[1e-30, 0.0], &[0.5], &[1e30, 1.0], &mut dx, &mut dy));
    assert_eq!((found.operand, found.index, found.origin), ("dx", Index::At(0), Origin::Overflow));
    let found = report(safe_pow_backward(Safe::default(), &[1.0, 0.0], &[0.5], &[1.0, 1.0], &mut dx, &mut dy));
    assert_eq!((found.operand, found.index, found.origin), ("dx", Index::At(1), Origin::DivisionByZero));
    // `dy` has no pole where `x` is 0.
    let found = report(safe_pow_backward(Safe::default(), &[0.0, 1e30], &[1.25], &[1.0, 3e31], &mut dx, &mut dy));
    assert_eq!((found.operand, found.index, found.origin), ("dx", Index::At(1), Origin::Overflow));
    let found = report(safe_pow_backward(Safe::default(), &[0.0, 1e30], &[1.25], &[1.0, 1.0], &mut dx, &mut dy));
    assert_eq!((found.operand, found.index, found.origin), ("dy", Index::At(0), Origin::Overflow));
    // That of a logarithm does.
    let found = report(xlogy_backward(&[0.0, 2.0], &[0.0], &[1.0, 1.0], &mut dx, &mut dy));
    assert_eq!((found.operand, found.index, found.origin), ("dx", Index::At(1), Origin::DivisionByZero));
}

// --- Gradients that are sums over rows -------------------------------------------------------------------------------

/// Terms beyond the range that cancel, or leave what is smaller; in columns beside those that stay within it.
fn terms_that_overflow_cancel<T: Float>() {
    let (one, two, h) = (T::one(), num::<T>(2.0), large::<T>());
    let (mut da, mut db) = ([T::zero(); 6], [T::zero(); 2]);
    let a = [h, one, h, two, two, two];
    let g = [h, one, -h, one, one, one];
    safe_mul_backward(&a, &[one, one], &g, &mut da, &mut db).unwrap();
    assert_eq!((da, db), (g, [two, num(5.0)]));
    let (mut da, mut db) = ([T::zero(); 2], [T::one()]);
    safe_mul_backward(&[h, h], &[one], &[h, -h], &mut da, &mut db).unwrap();
    assert!(db[0].is_zero());
    // The largest products there are, far apart.
    let max = T::max_value();
    let (mut da, mut db) = ([T::zero(); 3], [T::one()]);
    safe_mul_backward(&[max, one, max], &[one], &[max, T::min_positive_value(), -max], &mut da, &mut db).unwrap();
    assert_eq!(db[0], T::min_positive_value());
    // -(g / b) (a / b), with a / b^2 far beyond.
    let b = [h.recip()];
    let (mut da, mut db) = ([T::zero(); 3], [T::one()]);
    safe_div_backward(&[h, one, h], &b, &[one, h.recip() * h.recip(), -one], &mut da, &mut db).unwrap();
    assert_near(db[0], -1.0);
    // g x^y ln(x)
    let (mut dx, mut dy) = ([T::zero(); 3], [T::one()]);
    safe_pow_backward(Safe::default(), &[h, two, h], &[num(2.5)], &[one, one, -one], &mut dx, &mut dy).unwrap();
    assert_near(dy[0], 32.0_f64.sqrt() * core::f64::consts::LN_2);
    // g x / y
    let (mut dx, mut dy) = ([T::zero(); 3], [T::one()]);
    xlogy_backward(&[h, one, h], &[h.recip()], &[one, one, -one], &mut dx, &mut dy).unwrap();
    assert_near(dy[0], h.to_f64().unwrap());
    // A sum that overflows does; so does what is infinite or no number.
    let (mut da, mut db) = ([T::zero(); 3], [T::one()]);
    let found = report(safe_mul_backward(&[h, h, h], &[one], &[h, h, -h], &mut da, &mut db));
    assert_eq!((found.operand, found.class, found.origin), ("db", Class::PosInf, Origin::Overflow));
    let found = report(safe_mul_backward(&[h, T::nan(), h], &[one], &[h, one, -h], &mut da, &mut db));
    assert_eq!((found.operand, db[0].is_nan()), ("a", true));
    let found = report(safe_mul_backward(&[h, -T::infinity(), h], &[one], &[h, one, -h], &mut da, &mut db));
    assert_eq!((found.operand, db[0]), ("a", -T::infinity()));
    let found = report(safe_mul_backward(&[h, h, h], &[one], &[h, T::infinity(), -h], &mut da, &mut db));
    assert_eq!((found.operand, db[0]), ("g", T::infinity()));
}

#[test]
fn terms_that_overflow_cancel_in_either_type() {
    terms_that_overflow_cancel::<f32>();
    terms_that_overflow_cancel::<f64>();
}

#[test]
fn terms_that_overflow_cancel_over_many_rows() {
    let a: Vec<f32> = (0..30_000).map(|i| 1e30 + 1e26 * (i % 100) as f32).collect();
    let g: Vec<f32> = (0..30_000).map(|i| if i < 15_000 { 1e30 } else { -1e30 }).collect();
    for cols in [1, 3, 100] {
        let (mut da, mut db) = (vec![0.0; a.len()], vec![1.0; cols]);
        safe_mul_backward(&a, &vec![1.0; cols], &g, &mut da, &mut db).unwrap();
        assert_eq!(db, vec![0.0; cols]);
    }
}

// --- Optimisers ------------------------------------------------------------------------------------------------------

#[test]
fn a_step_names_what_overflowed_first() {
    let sgd = Sgd { learning_rate: 0.0_f32, momentum: 0.9, weight_decay: 0.0 };
    let (mut w, mut v) = ([1.0], [3e38]);
    let found = report(sgd.step(&mut w, &[3e38], &mut v));
    assert_eq!((found.operand, found.index, found.class), ("v", Index::At(0), Class::PosInf));
    assert_eq!((found.origin, w, v), (Origin::Overflow, [1.0], [3e38]));

    let adam = Adam { weight_decay: 100.0_f32, ..Adam::default() };
    let (mut w, mut m, mut v) = ([3e38], [0.0], [0.0]);
    let found = report(adam.step(1, &mut w, &[0.0], &mut m, &mut v));
    assert_eq!((found.operand, found.class, found.origin), ("m", Class::PosInf, Origin::Overflow));
}

fn steps_with_large_parts<T: Float>() {
    let (zero, one, ten) = (T::zero(), T::one(), num::<T>(10.0));
    let max = T::max_value();
    // Many elements, of which one is rare.
    for len in [1, 3, 40] {
        let last = len - 1;
        let sgd = Sgd { learning_rate: num(0.125), momentum: num(0.75), weight_decay: one };
        let (mut w, mut g, mut v) = (vec![one; len], vec![one; len], vec![one; len]);
        let (mut calm_w, mut calm_v) = (w.clone(), v.clone());
        sgd.step(&mut calm_w, &g, &mut calm_v).unwrap();
        (w[last], g[last], v[last]) = (max * num(0.25), max, -max);
        sgd.step(&mut w, &g, &mut v).unwrap();
        assert_eq!((w[last], v[last]), (max * num(0.1875), max * num(0.5)));
        assert_eq!((&w[..last], &v[..last]), (&calm_w[..last], &calm_v[..last]));

        let rate = max.sqrt() * num(2.0);
        let adamw = AdamW { learning_rate: rate, weight_decay: rate, ..AdamW::default() };
        let (mut w, mut m, mut v) = (vec![zero; len], vec![zero; len], vec![zero; len]);
        adamw.step(1, &mut w, &vec![zero; len], &mut m, &mut v).unwrap();
        assert_eq!((w, m, v), (vec![zero; len], vec![zero; len], vec![zero; len]));

        let adam = Adam { learning_rate: zero, eps: T::min_positive_value(), ..Adam::default() };
        let (mut w, mut m, mut v) = (vec![one; len], vec![ten; len], vec![zero; len]);
        adam.step(1, &mut w, &vec![zero; len], &mut m, &mut v).unwrap();
        assert_eq!((w, m), (vec![one; len], vec![ten * adam.beta1; len]));
    }
    // The rate over the correction of the mean overflows, and is small times a gradient that is.
    let adam = Adam { learning_rate: max * num(0.5), ..Adam::default() };
    let (mut w, mut m, mut v) = ([zero], [zero], [zero]);
    let g = num::<T>(2.0).powi(-40);
    adam.step(1, &mut w, &[g], &mut m, &mut v).unwrap();
    let step = (max * num(0.5)) * (g / (g + adam.eps));
    assert!((w[0] / -step - one).abs() < num::<T>(16.0) * T::epsilon(), "{:e} and not {:e}", w[0], -step);
    // What does overflow still does.
    let (mut w, mut m, mut v) = ([max], [zero], [zero]);
    let adamw = AdamW { learning_rate: num(3.0), weight_decay: num(3.0), ..AdamW::default() };
    let found = report(adamw.step(1, &mut w, &[zero], &mut m, &mut v));
    assert_eq!((found.operand, found.class, found.origin), ("w", Class::NegInf, Origin::Overflow));
    assert_eq!(w, [max]);
    // A mean that is not read may be anything.
    let sgd = Sgd { learning_rate: num(0.25), momentum: zero, weight_decay: num(2.0) };
    let (mut w, mut v) = ([max], [T::nan()]);
    sgd.step(&mut w, &[-max], &mut v).unwrap();
    assert_eq!((w, v), ([max * num(0.75)], [max]));
}

#[test]
fn steps_with_large_parts_of_either_type() {
    steps_with_large_parts::<f32>();
    steps_with_large_parts::<f64>();
}

// --- Clipping --------------------------------------------------------------------------------------------------------

#[test]
fn a_root_mean_square_below_the_smallest_number_is_clipped() {
    let mut x = vec![0.0_f32; 100_000];
    x[7] = 1e-43;
    let clip = clip_by_rms(&mut x, 0.0).unwrap();
    assert!(clip.clipped && x.iter().all(|&x| x == 0.0));
    let mut x = vec![0.0_f64; 100_000];
    x[7] = 1e-321;
    assert!(clip_by_rms(&mut x, 0.0).unwrap().clipped);
    assert!(!clip_by_rms(&mut x, 0.0).unwrap().clipped && x.iter().all(|&x| x == 0.0));
    // What is within, is left as it is.
    let mut x = vec![0.0_f32; 100_000];
    x[7] = 1e-43;
    assert!(!clip_by_rms(&mut x, f32::from_bits(1)).unwrap().clipped);
    assert_eq!(x[7], 1e-43);
}

/// Of norms that are subnormal the last places are gone once they are rounded.
#[test]
fn a_norm_is_compared_before_it_is_rounded_to_a_subnormal() {
    let unit = f32::from_bits(1);
    let mut x = [unit, unit]; // of norm 1.41
    let clip = clip_by_norm(&mut x, unit).unwrap();
    assert!(clip.clipped);
    let (mut rows, mut norms) = ([unit; 2], [0.0]);
    assert_eq!(clip_rows_by_norm(MatMut::new(&mut rows, 1, 2).unwrap(), unit, &mut norms).unwrap(), 1);
    assert_eq!(rows, x);
}

// --- Norms -----------------------------------------------------------------------------------------------------------

#[test]
fn gradients_of_norms_are_right_where_their_factor_is_subnormal() {
    for (p, g, factor) in [(3.0, 1.2e-321, 1e-2), (4.0, 1e-320, 1000.0_f64.powf(-0.75)), (0.5, 1e-321, 1e3)] {
        let mut dx = vec![0.0; 1000];
        lp_norm_backward(p, &vec![1.0; 1000], g, &mut dx).unwrap();
        let off = dx.iter().map(|dx| f64::abs(dx - g * factor)).fold(0.0, f64::max);
        assert!(dx[0] > 0.0 && off <= 2.0 * f64::from_bits(1), "{p}, {g:e}: {:e}", dx[0]);
    }
}

/// A power that is too small or too large for the type, times a factor that brings it back.
#[test]
fn gradients_of_norms_are_right_where_a_power_is_not_representable() {
    for (p, x, g, want) in [
        (2.5, [1.0, 1e-300], 1e300, 1e-150_f64),
        (3.5, [1.0, -1e-150], 1e300, -1e-75),
        (5.0, [1.0, 1e-150], 1e300, 1e-300),
        (2.5, [1e308, 1e-10], 1e300, 1e-177),
        (2.25, [1e20, 1e-300], 1e300, 1e-100),
    ] {
        let mut dx = [0.0; 2];
        lp_norm_backward(p, &x, g, &mut dx).unwrap();
        assert!((dx[1] / want - 1.0).abs() < 1e-14, "{p}, {x:?}, {g:e}: {:e} and not {want:e}", dx[1]);
    }
    let mut dx = [0.0; 2];
    lp_norm_backward(0.5, &[f64::MAX, f64::from_bits(1)], 1e-300, &mut dx).unwrap();
    let want = 1e-300 * 2.0_f64.powi(1000) * 2.0_f64.powi(49); // the root of the largest ratio there is
    assert!((dx[1] / want - 1.0).abs() < 1e-14, "{:e}", dx[1]);
}
