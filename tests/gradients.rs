//! Every backward function against central differences of its forward function in `f64`, and closed forms at the points
//! where differences do not reach.

mod common;

use common::{Kind, assert_same, data, mat, mat_mut, num, nums};
use nanproof::{
    CrossEntropy, Float, Gradcheck, Reduction, Safe, atan2, atan2_backward, clip_by_value, clip_by_value_backward,
    cross_entropy, cross_entropy_backward, dot, dot_backward, gradcheck, l2_norm, l2_norm_backward, log_softmax,
    log_softmax_backward, logsumexp, logsumexp_backward, matmul, matmul_backward, relu, relu_backward, safe_div,
    safe_div_backward, safe_ln, safe_ln_backward, safe_mul, safe_mul_backward, safe_pow, safe_pow_backward, safe_recip,
    safe_recip_backward, safe_rsqrt, safe_rsqrt_backward, safe_sqrt, safe_sqrt_backward, softmax, softmax_backward,
    sum, sum_backward, tanh, tanh_backward, xlog1py, xlog1py_backward, xlogy, xlogy_backward,
};

/// Compares with the differences of the function.
#[track_caller]
fn check(x: &[f64], gradient: &[f64], f: impl FnMut(&[f64]) -> f64) {
    check_within(Gradcheck { relative: 5e-9, absolute: 5e-10 }, x, gradient, f);
}

#[track_caller]
fn check_within(options: Gradcheck, x: &[f64], gradient: &[f64], f: impl FnMut(&[f64]) -> f64) {
    match gradcheck(options, x, gradient, f) {
        Ok(agreement) => assert_eq!((agreement.smooth, agreement.kinks, agreement.poles), (x.len(), 0, 0)),
        Err(error) => panic!("{error}"),
    }
}

/// Three rows of eleven.
const ROWS: usize = 3;
const COLS: usize = 11;

fn sample(seed: u64) -> Vec<f64> {
    data(seed, Kind::Within(2.0), ROWS * COLS)
}

/// The loss `sum(w y)` of a function that writes `y`, and of one matrix to another.
fn weighted(w: &[f64], f: impl FnOnce(&mut [f64]) -> nanproof::Result<()>) -> f64 {
    let mut y = vec![f64::NAN; w.len()];
    f(&mut y).expect("finite");
    y.iter().zip(w).map(|(y, w)| y * w).sum()
}

#[test]
fn maps() {
    let x = sample(1).into_iter().map(|x| x + 0.01 * x.signum()).collect::<Vec<_>>(); // away from the kink of relu
    let dy = sample(2);
    let mut dx = vec![f64::NAN; x.len()];
    relu_backward(&x, &dy, &mut dx).expect("finite");
    check(&x, &dx, |x| weighted(&dy, |y| relu(x, y)));
    tanh_backward(&x, &dy, &mut dx).expect("finite");
    check(&x, &dx, |x| weighted(&dy, |y| tanh(x, y)));
    clip_by_value_backward(&x, 0.9, &dy, &mut dx).expect("finite");
    let clipped = |x: &[f64]| {
        weighted(&dy, |y| {
            y.copy_from_slice(x);
            clip_by_value(y, 0.9).map(drop)
        })
    };
    check(&x, &dx, clipped);
}

#[test]
fn quotients() {
    let (a, g) = (sample(3), sample(5));
    let b = sample(4).into_iter().map(|b| b + 0.5_f64.copysign(b)).collect::<Vec<_>>();
    let (mut da, mut db) = (vec![f64::NAN; a.len()], vec![f64::NAN; a.len()]);
    safe_div_backward(&a, &b, &g, &mut da, &mut db).expect("finite");
    check(&a, &da, |a| weighted(&g, |q| safe_div(a, &b, q).map(drop)));
    let wider = Gradcheck { relative: 5e-8, absolute: 5e-9 };
    check_within(wider, &b, &db, |b| weighted(&g, |q| safe_div(&a, b, q).map(drop)));
}

#[test]
fn sums_and_norms() {
    let (x, y) = (sample(6), sample(7));
    let (mut dx, mut dy) = (vec![f64::NAN; x.len()], vec![f64::NAN; x.len()]);
    sum_backward(1.7, &mut dx).expect("finite");
    check(&x, &dx, |x| 1.7 * sum(x).expect("finite"));
    dot_backward(&x, &y, -1.3, &mut dx, &mut dy).expect("finite");
    check(&x, &dx, |x| -1.3 * dot(x, &y).expect("finite"));
    check(&y, &dy, |y| -1.3 * dot(&x, y).expect("finite"));
    l2_norm_backward(&x, 2.5, &mut dx).expect("finite");
    check(&x, &dx, |x| 2.5 * l2_norm(x).expect("finite"));
}

#[test]
fn guarded_functions() {
    type Forward = fn(Safe<f64>, &[f64], &mut [f64]) -> nanproof::Result<usize>;
    type Backward = fn(Safe<f64>, &[f64], &[f64], &mut [f64]) -> nanproof::Result<usize>;
    let functions: [(Forward, Backward); 4] = [
        (safe_recip, safe_recip_backward),
        (safe_sqrt, safe_sqrt_backward),
        (safe_rsqrt, safe_rsqrt_backward),
        (safe_ln, safe_ln_backward),
    ];
    let (x, g) = (positive(20), sample(21));
    let mut dx = vec![f64::NAN; x.len()];
    for (forward, backward) in functions {
        backward(Safe::default(), &x, &g, &mut dx).expect("finite");
        check(&x, &dx, |x| weighted(&g, |y| forward(Safe::default(), x, y).map(drop)));
    }
}

/// Numbers from 1 to 3.
fn positive(seed: u64) -> Vec<f64> {
    sample(seed).into_iter().map(|x| 2.0 + 0.5 * x).collect()
}

#[test]
fn powers_logarithms_and_angles() {
    type Forward = fn(&[f64], &[f64], &mut [f64]) -> nanproof::Result<usize>;
    type Backward = fn(&[f64], &[f64], &[f64], &mut [f64], &mut [f64]) -> nanproof::Result<usize>;
    let functions: [(Forward, Backward); 6] = [
        (
            |x, y, z| safe_pow(Safe::default(), y, x, z),
            |x, y, g, dx, dy| safe_pow_backward(Safe::default(), y, x, g, dy, dx),
        ),
        (xlogy, xlogy_backward),
        (xlog1py, xlog1py_backward),
        (safe_div, safe_div_backward),
        (safe_mul, safe_mul_backward),
        (|y, x, angle| atan2(y, x, angle).map(|()| 0), atan2_backward),
    ];
    let (x, y, g) = (sample(22), positive(23), sample(24));
    for (forward, backward) in functions {
        let (mut dx, mut dy) = (vec![f64::NAN; x.len()], vec![f64::NAN; x.len()]);
        backward(&x, &y, &g, &mut dx, &mut dy).expect("finite");
        check(&x, &dx, |x| weighted(&g, |z| forward(x, &y, z).map(drop)));
        check(&y, &dy, |y| weighted(&g, |z| forward(&x, y, z).map(drop)));
    }
    // A second operand that counts for every row.
    for (forward, backward) in &functions[1..] {
        for cols in [COLS, 1] {
            let y = &y[..cols];
            let (mut dx, mut dy) = (vec![f64::NAN; x.len()], vec![f64::NAN; cols]);
            backward(&x, y, &g, &mut dx, &mut dy).expect("finite");
            check(&x, &dx, |x| weighted(&g, |z| forward(x, y, z).map(drop)));
            check(y, &dy, |y| weighted(&g, |z| forward(&x, y, z).map(drop)));
        }
    }
}

#[test]
fn rows_of_logits() {
    let (x, dy) = (sample(8), sample(9));
    let (view, len) = (mat(&x, ROWS, COLS), x.len());
    let (mut y, mut dx) = (vec![f64::NAN; len], vec![f64::NAN; len]);
    softmax(view, mat_mut(&mut y, ROWS, COLS)).expect("finite");
    softmax_backward(mat(&y, ROWS, COLS), mat(&dy, ROWS, COLS), mat_mut(&mut dx, ROWS, COLS)).expect("finite");
    let f = |x: &[f64]| weighted(&dy, |y| softmax(mat(x, ROWS, COLS), mat_mut(y, ROWS, COLS)).map(drop));
    check(&x, &dx, f);
    log_softmax(view, mat_mut(&mut y, ROWS, COLS)).expect("finite");
    log_softmax_backward(mat(&y, ROWS, COLS), mat(&dy, ROWS, COLS), mat_mut(&mut dx, ROWS, COLS)).expect("finite");
    let f = |x: &[f64]| weighted(&dy, |y| log_softmax(mat(x, ROWS, COLS), mat_mut(y, ROWS, COLS)).map(drop));
    check(&x, &dx, f);
    logsumexp_backward(view, &dy[..ROWS], mat_mut(&mut dx, ROWS, COLS)).expect("finite");
    check(&x, &dx, |x| weighted(&dy[..ROWS], |y| logsumexp(mat(x, ROWS, COLS), y)));
    for (reduction, targets) in
        [(Reduction::Mean, [0, 99, 10]), (Reduction::Sum, [5, 5, 99]), (Reduction::Mean, [99; 3])]
    {
        let options = CrossEntropy { ignore: Some(99), reduction, ..CrossEntropy::default() };
        cross_entropy_backward(options, view, &targets, 0.7, mat_mut(&mut dx, ROWS, COLS)).expect("finite");
        let f = |x: &[f64]| 0.7 * cross_entropy(options, mat(x, ROWS, COLS), &targets).expect("finite").value;
        check(&x, &dx, f);
    }
}

#[test]
fn products() {
    let (m, k, n) = (3, 4, 5);
    let (a, b, dc) =
        (data(10, Kind::Within(1.0), m * k), data(11, Kind::Within(1.0), k * n), data(12, Kind::Within(1.0), m * n));
    let (mut da, mut db) = (vec![f64::NAN; m * k], vec![f64::NAN; k * n]);
    matmul_backward(mat(&a, m, k), mat(&b, k, n), mat(&dc, m, n), mat_mut(&mut da, m, k), mat_mut(&mut db, k, n))
        .expect("finite");
    check(&a, &da, |a| weighted(&dc, |c| matmul(mat(a, m, k), mat(&b, k, n), mat_mut(c, m, n))));
    check(&b, &db, |b| weighted(&dc, |c| matmul(mat(&a, m, k), mat(b, k, n), mat_mut(c, m, n))));
}

/// Where there is no derivative, or a convention: the subgradient of least norm, exactly.
fn closed_forms<T: Float>() {
    let mut dx = [T::nan(); 4];
    relu_backward(&nums(&[0.0, -0.0, 1e-30, -1e-30]), &[num(3.0); 4], &mut dx).expect("finite");
    assert_same("relu at its kink", &dx, &nums(&[0.0, 0.0, 3.0, 0.0]));
    l2_norm_backward(&[T::zero(); 4], num(3.0), &mut dx).expect("finite");
    assert_same("norm at 0", &dx, &[T::zero(); 4]);
    l2_norm_backward(&nums(&[0.0, 0.0, -5.0, 0.0]), num(3.0), &mut dx).expect("finite");
    assert_same("norm on an axis", &dx, &nums(&[0.0, 0.0, -3.0, 0.0]));
    tanh_backward(&nums(&[0.0, -0.0, 1e10, f64::NEG_INFINITY]), &[num(3.0); 4], &mut dx).expect("finite");
    assert_same("tanh", &dx, &nums(&[3.0, 3.0, 0.0, 0.0]));
    clip_by_value_backward(&nums(&[1.0, -1.0, 1.5, -1.5]), T::one(), &[num(3.0); 4], &mut dx).expect("finite");
    assert_same("at the limits the gradient passes", &dx, &nums(&[3.0, 3.0, 0.0, 0.0]));

    let mut db = [T::nan(); 4];
    safe_div_backward(&[num(2.0); 4], &nums(&[0.0, -0.0, 4.0, -0.5]), &[num(2.0); 4], &mut dx, &mut db)
        .expect("finite");
    assert_same("da", &dx, &nums(&[0.0, 0.0, 0.5, -4.0]));
    assert_same("db", &db, &nums(&[0.0, 0.0, -0.25, -16.0]));
    safe_mul_backward(&[num(2.0); 4], &nums(&[0.0, -0.0, 4.0, -0.5]), &[num(2.0); 4], &mut dx, &mut db)
        .expect("finite");
    assert_same("da", &dx, &nums(&[0.0, 0.0, 8.0, -1.0]));
    assert_same("db", &db, &nums(&[0.0, 0.0, 4.0, 4.0]));
    let infinite = nums::<T>(&[f64::INFINITY, f64::NEG_INFINITY, 1.0, 2.0]);
    assert_eq!(safe_mul_backward(&infinite, &[T::one(); 4], &[T::zero(); 4], &mut dx, &mut db), Ok(0));
    assert!(dx.iter().chain(&db).all(|x| x.is_zero()), "an upstream gradient of 0 gives 0 past an infinite factor");
    let g_zero = safe_div_backward(&[T::max_value(); 4], &[T::from_bits(1); 4], &[T::zero(); 4], &mut dx, &mut db);
    assert_eq!(g_zero, Ok(0));
    assert!(dx.iter().chain(&db).all(|x| x.is_zero()), "an upstream gradient of 0 gives 0 through a pole");

    // Ties share; a mask takes its share away.
    logsumexp_backward(mat(&[T::one(); 4], 1, 4), &[num(2.0)], mat_mut(&mut dx, 1, 4)).expect("finite");
    assert_same("ties", &dx, &[num(0.5); 4]);
    let x = nums::<T>(&[1.0, f64::NEG_INFINITY, 1.0, f64::NEG_INFINITY]);
    logsumexp_backward(mat(&x, 1, 4), &[num(2.0)], mat_mut(&mut dx, 1, 4)).expect("finite");
    assert_same("masked", &dx, &nums(&[1.0, 0.0, 1.0, 0.0]));
    let empty = [T::neg_infinity(); 4];
    logsumexp_backward(mat(&empty, 1, 4), &[num(2.0)], mat_mut(&mut dx, 1, 4)).expect("finite");
    assert_same("an empty row", &dx, &[T::zero(); 4]);
    let options = CrossEntropy { ignore: None, reduction: Reduction::Sum, ..CrossEntropy::default() };
    cross_entropy_backward(options, mat(&x, 1, 4), &[2], num(4.0), mat_mut(&mut dx, 1, 4)).expect("finite");
    assert_same("cross-entropy", &dx, &nums(&[2.0, 0.0, -2.0, 0.0]));
    cross_entropy_backward(options, mat(&[num::<T>(5.0)], 1, 1), &[0], num(4.0), mat_mut(&mut dx[..1], 1, 1))
        .expect("finite");
    assert!(dx[0].is_zero(), "one class");
    softmax_backward(mat(&nums(&[0.0, 0.0, 1.0, 0.0]), 1, 4), mat(&[num(9.0); 4], 1, 4), mat_mut(&mut dx, 1, 4))
        .expect("finite");
    assert_same("softmax of a sure event", &dx, &[T::zero(); 4]);
}

#[test]
fn at_special_points() {
    everywhere!(closed_forms);
}
