//! The definitions of `nanproof::reference` against a library of any precision, where they are hardest: cancellation, the
//! seams between formulas, arguments at both ends of the range.

use std::fmt::Debug;

use astro_float_num::{BigFloat, Consts, RoundingMode};
use nanproof::reference::{self, Wide};

/// Bits of what is compared with: more than enough for the functions here, but where a series cancels.
const PRECISION: usize = 512;

/// Bits that the arithmetic of the reference has right. Functions whose arguments are reduced, or that cancel, lose some.
const ARITHMETIC: i32 = 104;

/// A number as it is. The library takes subnormal ones for less than they are.
fn big(x: f64) -> BigFloat {
    let up = 2.0_f64.powi(100);
    if x.is_subnormal() { div(&big(x * up), &big(up)) } else { BigFloat::from_f64(x, PRECISION) }
}

/// Exactly, as products are. (Of a sum with 0 the library keeps no digits.)
fn add(a: &BigFloat, b: &BigFloat) -> BigFloat {
    match (a.is_zero(), b.is_zero()) {
        (true, _) => b.clone(),
        (_, true) => a.clone(),
        _ => a.add_full_prec(b),
    }
}

fn sub(a: &BigFloat, b: &BigFloat) -> BigFloat {
    add(a, &b.neg())
}

fn mul(a: &BigFloat, b: &BigFloat) -> BigFloat {
    a.mul_full_prec(b)
}

fn div(a: &BigFloat, b: &BigFloat) -> BigFloat {
    a.div(b, PRECISION, RoundingMode::ToEven)
}

/// A function of the library, rounded once to [`PRECISION`].
fn function(f: fn(&BigFloat, usize, RoundingMode, &mut Consts) -> BigFloat, x: &BigFloat) -> BigFloat {
    f(x, PRECISION, RoundingMode::ToEven, &mut Consts::new().expect("memory for constants"))
}

fn exp(x: &BigFloat) -> BigFloat {
    function(BigFloat::exp, x)
}

fn ln(x: &BigFloat) -> BigFloat {
    function(BigFloat::ln, x)
}

/// `2^n`.
fn power(n: i32) -> Wide {
    let step = Wide::new(2.0_f64.powi(n.signum() * 1000));
    (0..n.abs() / 1000).fold(Wide::new(2.0_f64.powi(n % 1000)), |power, _| power * step)
}

/// How many leading bits of a reference value are right.
fn bits_right(got: Wide, want: &BigFloat) -> i32 {
    if want.is_zero() {
        return if got.to_f64() == 0.0 { i32::MAX } else { 0 };
    }
    // Both brought near 1: there two numbers of `f64` hold what the reference holds.
    let exponent = want.exponent().expect("it is finite");
    let got = got * power(-exponent);
    let high = got.to_f64();
    let low = (got - Wide::new(high)).to_f64();
    let mut want = want.clone();
    want.set_exponent(0);
    let error = sub(&add(&big(high), &big(low)), &want);
    if error.is_zero() { i32::MAX } else { -error.exponent().expect("it is finite") }
}

/// Requires so many bits of a value.
fn check(bits: i32, name: &str, argument: impl Debug, got: Wide, want: &BigFloat) {
    let right = bits_right(got, want);
    assert!(right >= bits, "{name} of {argument:?}: {right} bits are right; {got:?} for {want}");
}

/// Both ends of the range, and everything between; the seams of the reference; neighbours of 0 and of 1.
fn arguments() -> Vec<f64> {
    let mut x = vec![
        f64::from_bits(1),
        f64::MIN_POSITIVE,
        1e-300,
        1e-30,
        1e-16,
        2.0_f64.powi(-10).next_down(),
        0.001,
        0.1,
        0.3_f64.next_down(),
        0.3,
        0.5,
        std::f64::consts::LN_2 / 2.0,
        std::f64::consts::LN_2,
        1.0_f64.next_down(),
        1.0,
        1.0_f64.next_up(),
        1.0 + 2.0_f64.powi(-10),
        1.5,
        2.0,
        3.0_f64.next_down(),
        3.0,
        5.9,
        26.5,
        199.9,
        700.0,
    ];
    let mut state = 1_u64;
    for _ in 0..200 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let unit = (state >> 11) as f64 / (1_u64 << 53) as f64;
        x.extend([unit, 30.0 * unit, 700.0 * unit]);
    }
    x
}

/// The same with both signs.
fn signed() -> Vec<f64> {
    arguments().into_iter().flat_map(|x| [x, -x]).collect()
}

#[test]
fn sums_products_and_quotients() {
    let x = [1.0, -1.0, 1.0 + f64::EPSILON, 0.1, 3.0, 1e-17, 1e16, 1e-30, -2.0 / 3.0, 1e300, 1e-300];
    for &a in &x {
        for &b in &x {
            // Of two terms each.
            let (wide_a, wide_b) = (Wide::new(a) + Wide::new(a * 1e-17), Wide::new(b) - Wide::new(b * 3e-18));
            let (a, b) = (add(&big(a), &big(a * 1e-17)), sub(&big(b), &big(b * 3e-18)));
            let operands = (wide_a, wide_b);
            check(ARITHMETIC, "the product", operands, wide_a * wide_b, &mul(&a, &b));
            check(ARITHMETIC, "the quotient", operands, wide_a / wide_b, &div(&a, &b));
            // The bits that are right are those of the operands: three times them is added so that nothing cancels.
            let (wide_size, size) = (wide_a.abs() + wide_b.abs(), add(&a.abs(), &b.abs()));
            let (wide_size, size) = (wide_size * Wide::new(3.0_f64), mul(&size, &big(3.0)));
            check(ARITHMETIC, "the sum", operands, wide_a + wide_b + wide_size, &add(&add(&a, &b), &size));
            check(ARITHMETIC, "the difference", operands, wide_a - wide_b + wide_size, &add(&sub(&a, &b), &size));
        }
    }
}

#[test]
fn sums_that_cancel_are_exact() {
    let x = [1e308, 1.0, 1e-308, -1e308, 3e-320, 1e16, -1.0, -1e16];
    let want = x.iter().fold(big(0.0), |sum, &x| add(&sum, &big(x)));
    check(ARITHMETIC, "the sum", x, reference::sum(&x), &want);
    let (a, b) = ([1e200, 3.0, 1e-200, -1e200, 7.0], [1e200, 1e-160, 1e-120, 1e200, -1e-159]);
    let want = a.iter().zip(&b).fold(big(0.0), |sum, (&a, &b)| add(&sum, &mul(&big(a), &big(b))));
    check(ARITHMETIC, "the dot product", (a, b), reference::dot(&a, &b), &want);
}

#[test]
fn roots() {
    for x in arguments().into_iter().chain([f64::MAX]) {
        check(ARITHMETIC, "the root", x, Wide::new(x).sqrt(), &big(x).sqrt(PRECISION, RoundingMode::ToEven));
    }
}

#[test]
fn exponentials() {
    for x in signed().into_iter().chain([-744.0, -1000.0, 5000.0, -20_000.0]) {
        let want = exp(&big(x));
        check(92, "exp", x, Wide::new(x).exp(), &want);
        // Of tiny numbers more bits are needed than the exponential has.
        if x.abs() > 1e-100 {
            check(96, "exp_m1", x, Wide::new(x).exp_m1(), &sub(&want, &big(1.0)));
        } else {
            check(96, "exp_m1", x, Wide::new(x).exp_m1(), &big(x));
        }
    }
}

#[test]
fn logarithms() {
    for x in arguments().into_iter().chain([1e308, f64::MAX]) {
        check(100, "ln", x, Wide::new(x).ln(), &ln(&big(x)));
    }
    for x in signed().into_iter().filter(|&x| x > -1.0) {
        check(96, "ln_1p", x, Wide::new(x).ln_1p(), &ln(&add(&big(1.0), &big(x))));
    }
    // Near 1, by less than an `f64` tells.
    for offset in [1e-20, -3e-25, 7e-30] {
        let x = Wide::new(1.0_f64) + Wide::new(offset);
        check(100, "ln", x, x.ln(), &ln(&add(&big(1.0), &big(offset))));
    }
}

#[test]
fn hyperbolic_tangents_and_arctangents() {
    for x in signed() {
        check(ARITHMETIC, "tanh", x, Wide::new(x).tanh(), &function(BigFloat::tanh, &big(x)));
        check(103, "atan", x, Wide::new(x).atan(), &function(BigFloat::atan, &big(x)));
    }
}

/// `erf(x)` by its Maclaurin series, `2 / sqrt(pi) (x - x^3 / 3 + x^5 / (2! 5) - ...)`, with as many bits as cancel.
fn error_function(x: f64) -> BigFloat {
    let (precision, round) = (PRECISION + (4.0 * x * x) as usize, RoundingMode::ToEven);
    let number = |x: f64| BigFloat::from_f64(x, precision);
    let square = number(x).mul(&number(-x), precision, round);
    let (mut term, mut sum, mut n) = (number(x), number(x), 0.0);
    while term.exponent().expect("it is finite") > sum.exponent().expect("it is finite") - precision as i32 {
        n += 1.0;
        term = term.mul(&square, precision, round).div(&number(n), precision, round);
        sum = sum.add(&term.div(&number(2.0 * n + 1.0), precision, round), precision, round);
    }
    let pi = Consts::new().expect("memory for constants").pi(precision, round);
    sum.mul(&number(2.0), precision, round).div(&pi.sqrt(precision, round), precision, round)
}

#[test]
fn error_functions() {
    let x = signed().into_iter().filter(|x| x.abs() > 1e-100 && x.abs() <= 27.0);
    for x in x.filter(|x| x.abs() < 3.5 || x.fract() < 0.2) {
        let want = error_function(x);
        check(103, "erf", x, Wide::new(x).erf(), &want);
        check(88, "erfc", x, Wide::new(x).erfc(), &sub(&big(1.0), &want));
    }
}

/// What the crate is made for, from the formulas with all digits.
#[test]
fn rows() {
    for x in [
        vec![0.0, -20.0],
        vec![1000.0, 1000.0, -1000.0],
        vec![-700.0, -700.5, -701.0, -699.0],
        vec![1e-300, -1e-300, 0.0],
        vec![3.5, -2.25, 0.125, 17.0, -40.0, 16.9375],
    ] {
        let exponentials = x.iter().map(|&x| exp(&big(x))).collect::<Vec<_>>();
        let sum = exponentials.iter().fold(big(0.0), |sum, e| add(&sum, e));
        check(ARITHMETIC, "logsumexp", &x, reference::logsumexp(&x), &ln(&sum));
        for (j, p) in reference::softmax(&x).into_iter().enumerate() {
            check(96, "softmax", &x, p, &div(&exponentials[j], &sum));
        }
        let squares = x.iter().fold(big(0.0), |sum, &x| add(&sum, &mul(&big(x), &big(x))));
        check(ARITHMETIC, "l2_norm", &x, reference::l2_norm(&x), &squares.sqrt(PRECISION, RoundingMode::ToEven));
        let n = big(x.len() as f64);
        let mean = div(&x.iter().fold(big(0.0), |sum, &x| add(&sum, &big(x))), &n);
        let deviations = x.iter().map(|&x| sub(&big(x), &mean)).collect::<Vec<_>>();
        let variance = div(&deviations.iter().fold(big(0.0), |sum, d| add(&sum, &mul(d, d))), &n);
        check(ARITHMETIC, "variance", &x, reference::variance(&x, 0), &variance);
    }
}
