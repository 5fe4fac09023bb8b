//! Quotients, products, roots, logarithms, powers, angles and losses element by element, with their gradients, on operands of any bits: the
//! documented error, the special values, the counts, true reports; a row or a number for every row.

#![no_main]

use arbitrary::{Result as Drawn, Unstructured};
use libfuzzer_sys::fuzz_target;
use nanproof::reference::{self, Wide};
use nanproof::*;
use nanproof_fuzz::*;

fn run<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    match u.int_in_range(0..=6)? {
        0 => one_operand(*u.choose(&functions::<T>())?, u),
        1..=3 => two_operands(*u.choose(&pairs::<T>())?, u),
        4 => binary_losses::<T>(u),
        5 => divergences::<T>(u),
        _ => sums_and_dot_products::<T>(u),
    }
}

/// What a result is to be.
#[derive(Clone, Copy, Debug)]
enum Want<T> {
    /// To the bit.
    Exactly(T),
    /// Within units in the last place, and infinite where this is.
    Ulp(Wide, f64),
    /// Infinite or NaN.
    NotFinite,
}

use Want::{Exactly, NotFinite, Ulp};

impl<T: Float> Want<T> {
    /// Of either sign.
    fn zero() -> Self {
        Ulp(Wide::new(T::zero()), 0.0)
    }

    fn nan() -> Self {
        Exactly(T::nan())
    }

    /// The number itself, if it is one whose size can be told; `got` where that is exact.
    fn as_wide(self, got: T) -> Option<Wide> {
        let square = Wide::new(T::max_value()) * Wide::new(T::max_value());
        match self {
            Exactly(_) if got.is_finite() => Some(Wide::new(got)),
            Ulp(want, _) if is_finite(want) && want.abs() < square * square => Some(want),
            _ => None,
        }
    }

    #[track_caller]
    fn check(self, got: T, context: impl Fn() -> String) {
        match self {
            Exactly(want) => assert!(same(got, want), "{}: {got:e} for {want:e}", context()),
            Ulp(want, bound) => {
                assert_ulp(&context(), got, want, bound);
                assert!(is_finite(want) || !got.is_finite(), "{}: {got:e} where there is a pole", context());
            }
            NotFinite => assert!(!got.is_finite(), "{}: {got:e}", context()),
        }
    }
}

fn is_finite(x: Wide) -> bool {
    !(x - x).to_f64().is_nan()
}

fn wide_of(x: f64) -> Wide {
    Wide::new(x)
}

/// The reference takes tens of microseconds an element.
const COMPARED: usize = 24;

/// The elements to compare with the reference.
fn compared(len: usize) -> impl Iterator<Item = usize> {
    (0..len).rev().step_by(1 + len / COMPARED)
}

/// Many elements now and then.
fn drawn_length(u: &mut Unstructured<'_>) -> Drawn<usize> {
    let long = u.ratio(1, 24)?;
    length(u, if long { 5000 } else { 100 })
}

fn options<T: Float>(u: &mut Unstructured<'_>) -> Drawn<Safe<T>> {
    let default = scalar(u)?;
    let eps = match u.int_in_range(0..=3)? {
        0 | 1 => T::zero(),
        2 => num(f64::from(u.int_in_range(0..=4_u8)?) / 4.0),
        _ => scalar(u)?,
    };
    Ok(Safe { default, eps })
}

fn is_allowed<T: Float>(options: Safe<T>) -> bool {
    options.eps >= T::zero() && options.eps.is_finite()
}

/// Holds a result to what was written: an error if and only if that is not all finite, else the count.
#[track_caller]
fn check_count<T: Float>(name: &str, result: &Result<usize>, written: &[&[T]], count: usize) {
    let finite = written.iter().all(|x| all_finite(x));
    assert_eq!(is_reported(result), !finite, "{name}: {result:?}");
    assert!(!finite || *result == Ok(count), "{name}: {result:?}, and {count} are guarded");
}

/// A report names the first element of its operand that is not finite and counts, and an output only if none in an input
/// does. Of an operand with fewer elements than there are, each stands in every row.
#[track_caller]
fn check_first<T: Float>(
    result: &Result<usize>,
    len: usize,
    [inputs, outputs]: [&[(&str, &[T])]; 2],
    counts: impl Fn(usize, T) -> bool,
) {
    let Err(Error::NonFinite(report)) = result else { return };
    let Index::At(at) = report.index else { return };
    let first = |x: &[T]| {
        let is_fault = |&j: &usize| !x[j].is_finite() && (j..len).step_by(x.len()).any(|i| counts(i, x[j]));
        (0..x.len()).find(is_fault)
    };
    let passed_in = report.origin == Origin::PassedIn;
    let (_, named) = if passed_in { inputs } else { outputs }
        .iter()
        .find(|(name, _)| *name == report.operand)
        .expect("check_report found it");
    assert_eq!(first(named), Some(at), "{report:?}");
    assert!(passed_in || inputs.iter().all(|(_, x)| first(x).is_none()), "{report:?}");
}

// --- Functions of one operand ----------------------------------------------------------------------------------------

/// A function and its gradient, what they should be where the operand is not guarded, and their errors in ULP: 0 where
/// the value must be that of IEEE arithmetic.
#[derive(Clone, Copy)]
struct Function<T> {
    names: [&'static str; 2],
    forward: fn(Safe<T>, &[T], &mut [T]) -> Result<usize>,
    backward: fn(Safe<T>, &[T], &[T], &mut [T]) -> Result<usize>,
    is_guarded: fn(T, T) -> bool,
    value: fn(T) -> Want<T>,
    slope: fn(T, T) -> Want<T>,
}

fn functions<T: Float>() -> [Function<T>; 4] {
    [
        Function {
            names: ["safe_recip", "safe_recip_backward"],
            forward: safe_recip,
            backward: safe_recip_backward,
            is_guarded: |eps, x| x.abs() <= eps,
            value: |x| Exactly(x.recip()),
            slope: |x, g| Ulp(-(Wide::new(g) / Wide::new(x) / Wide::new(x)), 1.5),
        },
        Function {
            names: ["safe_sqrt", "safe_sqrt_backward"],
            forward: safe_sqrt,
            backward: safe_sqrt_backward,
            is_guarded: |eps, x| x <= eps,
            value: |x| Exactly(x.sqrt()),
            slope: |x, g| Ulp(Wide::new(g) / (Wide::new(x).sqrt() * wide_of(2.0)), 1.5),
        },
        Function {
            names: ["safe_rsqrt", "safe_rsqrt_backward"],
            forward: safe_rsqrt,
            backward: safe_rsqrt_backward,
            is_guarded: |eps, x| x <= eps,
            value: |x| Ulp(wide_of(1.0) / Wide::new(x).sqrt(), 1.5),
            slope: |x, g| Ulp(-(Wide::new(g) / (Wide::new(x).sqrt() * wide_of(2.0)) / Wide::new(x)), 2.5),
        },
        Function {
            names: ["safe_ln", "safe_ln_backward"],
            forward: safe_ln,
            backward: safe_ln_backward,
            is_guarded: |eps, x| x <= eps,
            value: |x| Ulp(Wide::new(x).ln(), 0.59),
            slope: |x, g| Exactly(g / x),
        },
    ]
}

fn one_operand<T: Float>(function: Function<T>, u: &mut Unstructured<'_>) -> Drawn<()> {
    let len = drawn_length(u)?;
    let (options, x) = (options(u)?, numbers::<T>(u, len)?);
    let is_guarded = |x: T| (function.is_guarded)(options.eps, x);
    let count = x.iter().filter(|&&x| is_guarded(x)).count();

    let (name, y) = (function.names[0], about::<T>(u, len)?);
    let Outcome { written: [y], result } = everywhere(name, [&y], |[y]| (function.forward)(options, &x, y));
    assert_eq!(is_refused(&result), y.len() != len || !is_allowed(options), "{name}, {options:?}: {result:?}");
    if !is_refused(&result) {
        let inputs = [("x", Operand::Slice(&x)), ("default", Operand::Scalar(options.default))];
        check_report(&result, &inputs, &[("y", Operand::Slice(&y))], &[]);
        check_count(name, &result, &[&y], count);
        check_first(&result, len, [&[("x", &x)], &[("y", &y)]], |i, _| !y[i].is_finite() && !is_guarded(x[i]));
        for i in compared(len) {
            let want = if is_guarded(x[i]) { Exactly(options.default) } else { (function.value)(x[i]) };
            want.check(y[i], || format!("{name} of {:e}, {options:?}", x[i]));
        }
    }

    let (name, g, dx) = (function.names[1], about::<T>(u, len)?, about::<T>(u, len)?);
    let Outcome { written: [dx], result } = everywhere(name, [&dx], |[dx]| (function.backward)(options, &x, &g, dx));
    let refused = g.len() != len || dx.len() != len || !is_allowed(options);
    assert_eq!(is_refused(&result), refused, "{name}, {options:?}: {result:?}");
    if !refused {
        let inputs = [("x", Operand::Slice(&x)), ("dy", Operand::Slice(&g))];
        check_report(&result, &inputs, &[("dx", Operand::Slice(&dx))], &[]);
        check_count(name, &result, &[&dx], count);
        check_first(&result, len, [&[("x", &x), ("dy", &g)], &[("dx", &dx)]], |i, _| !dx[i].is_finite());
        for i in compared(len) {
            let want = match () {
                () if is_guarded(x[i]) => Exactly(T::zero()),
                () if g[i].is_zero() && !x[i].is_nan() => Want::zero(),
                () => (function.slope)(x[i], g[i]),
            };
            want.check(dx[i], || format!("{name} of {:e}, {:e}, {options:?}", x[i], g[i]));
        }
    }
    Ok(())
}

// --- Functions of two operands ---------------------------------------------------------------------------------------

/// A function of two operands and its gradients, with the names of all operands, and what they should be.
#[derive(Clone, Copy)]
struct Pair<T> {
    names: [&'static str; 2],
    /// The operands, the result, the gradients.
    operands: [&'static str; 5],
    has_options: bool,
    /// Whether an infinite operand is no fault, but has limits.
    has_limits: bool,
    forward: fn(Safe<T>, &[T], &[T], &mut [T]) -> Result<usize>,
    backward: fn(Safe<T>, &[T], &[T], &[T], &mut [T], &mut [T]) -> Result<usize>,
    /// What is counted.
    is_guarded: fn(T, T, T) -> bool,
    /// Whether there the value is the default, and both gradients are 0.
    guards: [bool; 2],
    value: fn(T, T) -> Want<T>,
    slopes: fn(T, T, T) -> [Want<T>; 2],
}

fn pairs<T: Float>() -> [Pair<T>; 6] {
    [
        Pair {
            names: ["safe_div", "safe_div_backward"],
            operands: ["a", "b", "q", "da", "db"],
            has_options: true,
            has_limits: false,
            forward: safe_div_with,
            backward: safe_div_backward_with,
            is_guarded: |eps, _, b| b.abs() <= eps,
            guards: [true; 2],
            value: |a, b| Exactly(a / b),
            slopes: |a, b, g| {
                let [_, db] = reference::safe_div_backward(a, b, g);
                [Exactly(g / b), Ulp(db, 2.0)]
            },
        },
        Pair {
            names: ["safe_pow", "safe_pow_backward"],
            operands: ["x", "y", "z", "dx", "dy"],
            has_options: true,
            has_limits: false,
            forward: safe_pow,
            backward: safe_pow_backward,
            is_guarded: |eps, x, y| x.abs() <= eps && y < T::zero() || x < T::zero() && !is_whole(y),
            guards: [true; 2],
            value: power,
            slopes: power_slopes,
        },
        Pair {
            names: ["xlogy", "xlogy_backward"],
            operands: ["x", "y", "z", "dx", "dy"],
            has_options: false,
            has_limits: false,
            forward: |_, x, y, z| xlogy(x, y, z),
            backward: |_, x, y, g, dx, dy| xlogy_backward(x, y, g, dx, dy),
            is_guarded: |_, x, _| x.is_zero(),
            guards: [true, false],
            value: |x, y| product(reference::xlogy(x, y)),
            slopes: |x, y, g| log_slopes(y, T::zero(), x, [1.0, 1.5], reference::xlogy_backward(x, y, g)),
        },
        Pair {
            names: ["xlog1py", "xlog1py_backward"],
            operands: ["x", "y", "z", "dx", "dy"],
            has_options: false,
            has_limits: false,
            forward: |_, x, y, z| xlog1py(x, y, z),
            backward: |_, x, y, g, dx, dy| xlog1py_backward(x, y, g, dx, dy),
            is_guarded: |_, x, _| x.is_zero(),
            guards: [true, false],
            value: |x, y| product(reference::xlog1py(x, y)),
            slopes: |x, y, g| log_slopes(y, -T::one(), x, [1.0, 2.5], reference::xlog1py_backward(x, y, g)),
        },
        Pair {
            names: ["safe_mul", "safe_mul_backward"],
            operands: ["a", "b", "p", "da", "db"],
            has_options: false,
            has_limits: false,
            forward: |_, a, b, p| safe_mul(a, b, p),
            backward: |_, a, b, g, da, db| safe_mul_backward(a, b, g, da, db),
            is_guarded: |_, _, b| b.is_zero(),
            guards: [true; 2],
            value: |a, b| Exactly(a * b),
            slopes: |a, b, g| [Exactly(g * b), Exactly(g * a)],
        },
        Pair {
            names: ["atan2", "atan2_backward"],
            operands: ["y", "x", "angle", "dy", "dx"],
            has_options: false,
            has_limits: true,
            forward: |_, y, x, angle| atan2(y, x, angle).map(|()| 0),
            backward: |_, y, x, g, dy, dx| atan2_backward(y, x, g, dy, dx),
            is_guarded: |_, y, x| y.is_zero() && x.is_zero(),
            guards: [false, true],
            value: angle,
            slopes: angle_slopes,
        },
    ]
}

/// Within 0.51 ULP, and 1 ULP next to subnormal results.
fn product<T: Float>(want: Wide) -> Want<T> {
    let is_small = want.abs() < wide_of(64.0) * Wide::new(T::min_positive_value());
    Ulp(want, if is_small { 1.0 } else { 0.51 })
}

/// The gradients of a factor times a logarithm with a pole: below it there is no number, and where the factor is 0 the
/// gradients are 0 but for that of the factor above the pole.
fn log_slopes<T: Float>(y: T, pole: T, x: T, bounds: [f64; 2], [dx, dy]: [Wide; 2]) -> [Want<T>; 2] {
    match (x.is_zero(), y > pole || y.is_nan()) {
        (true, false) => [Want::zero(); 2],
        (true, true) => [Ulp(dx, bounds[0]), Want::zero()],
        (false, false) if y < pole => [Want::nan(); 2],
        _ => [Ulp(dx, bounds[0]), Ulp(dy, bounds[1])],
    }
}

/// The special values are those of the C library.
fn angle<T: Float>(y: T, x: T) -> Want<T> {
    let is_special = y.is_zero() || x.is_zero() || !y.is_finite() || !x.is_finite();
    if is_special { Exactly(y.atan2(x)) } else { Ulp(reference::atan2(y, x), 0.66) }
}

fn angle_slopes<T: Float>(y: T, x: T, g: T) -> [Want<T>; 2] {
    match () {
        () if y.is_nan() || x.is_nan() => [Want::nan(); 2],
        () if !g.is_finite() => [NotFinite; 2],
        () if y.is_infinite() || x.is_infinite() => [Want::zero(); 2],
        () => reference::atan2_backward(y, x, g).map(|slope| Ulp(slope, 2.5)),
    }
}

/// Infinities are whole and even; what is NaN is not asked.
fn is_whole<T: Float>(y: T) -> bool {
    !y.is_finite() || y.fract().is_zero()
}

fn is_odd<T: Float>(y: T) -> bool {
    y.is_finite() && (y % num(2.0)).abs() == T::one()
}

/// The special values are those of the C library, but that no NaN is a signal.
fn power<T: Float>(x: T, y: T) -> Want<T> {
    if y.is_zero() || x == T::one() {
        return Exactly(T::one());
    }
    if x.is_zero() || !x.is_finite() || !y.is_finite() {
        return Exactly(x.powf(y));
    }
    let magnitude = reference::pow(x.abs(), y);
    Ulp(if x < T::zero() && is_odd(y) { -magnitude } else { magnitude }, 0.7)
}

fn power_slopes<T: Float>(x: T, y: T, g: T) -> [Want<T>; 2] {
    [power_slope_of_base(x, y, g), power_slope_of_exponent(x, y, g)]
}

fn power_slope_of_base<T: Float>(x: T, y: T, g: T) -> Want<T> {
    let one = T::one();
    // Of an even power of a negative number.
    let sign = if x < T::zero() && !is_odd(y) { -one } else { one };
    match () {
        () if y.is_zero() => Want::zero(),
        () if x.is_nan() || y.is_nan() => Want::nan(),
        () if x.is_zero() && y == one => Exactly(g),
        () if x.is_zero() && y < one => Exactly(g * T::infinity()),
        () if x.is_zero() && g.is_finite() => Want::zero(),
        () if x.is_zero() => Want::nan(),
        () if !g.is_finite() => NotFinite,
        () if x.is_finite() && y.is_finite() => Ulp(Wide::new(sign) * reference::pow_backward(x.abs(), y, g)[0], 3.0),
        () => limit([g * y * sign, x.abs().powf(y - one)]),
    }
}

fn power_slope_of_exponent<T: Float>(x: T, y: T, g: T) -> Want<T> {
    match () {
        () if x.is_nan() || y.is_nan() => Want::nan(),
        () if x <= T::zero() => Want::zero(),
        () if !g.is_finite() => NotFinite,
        () if x.is_finite() && y.is_finite() => Ulp(reference::pow_backward(x, y, g)[1], 3.0),
        () => limit([nonzero_product(g, x.ln()), x.powf(y)]),
    }
}

/// A product that is 0 only where a factor is.
fn nonzero_product<T: Float>(a: T, b: T) -> T {
    let product = a * b;
    let underflows = product.is_zero() && !a.is_zero() && !b.is_zero();
    if underflows { T::min_positive_value().copysign(product) } else { product }
}

/// A factor times a power, which outweighs it where it is 0.
fn limit<T: Float>([factor, power]: [T; 2]) -> Want<T> {
    if power.is_zero() { Want::zero() } else { Exactly(factor * power) }
}

/// A row, a number, or an element for each.
fn second_length(u: &mut Unstructured<'_>, len: usize) -> Drawn<usize> {
    let divisors: Vec<usize> = (1..=len).filter(|n| len.is_multiple_of(*n)).collect();
    Ok(match u.int_in_range(0..=7)? {
        0..=3 => len,
        4 => 1,
        5 | 6 if len > 0 => *u.choose(&divisors)?,
        _ => length(u, 40)?,
    })
}

fn two_operands<T: Float>(pair: Pair<T>, u: &mut Unstructured<'_>) -> Drawn<()> {
    let len = drawn_length(u)?;
    let cols = second_length(u, len)?;
    let (a, b) = (numbers::<T>(u, len)?, numbers::<T>(u, cols)?);
    let options = if pair.has_options { options(u)? } else { Safe::default() };
    forward(pair, options, [&a, &b], &about(u, len)?);
    let g = about(u, len)?;
    backward(pair, options, [&a, &b, &g], [&about(u, len)?, &about(u, cols)?]);
    Ok(())
}

fn fits<T>(a: &[T], b: &[T]) -> bool {
    a.len() == b.len() || !b.is_empty() && a.len().is_multiple_of(b.len())
}

/// The second operand, an element for each of the first.
fn spread<T: Float>(b: &[T], len: usize) -> Vec<T> {
    b.iter().copied().cycle().take(len).collect()
}

/// The operand without infinities that are no faults.
fn faults<T: Float>(pair: Pair<T>, x: &[T]) -> Vec<T> {
    let fault = |&x: &T| if pair.has_limits && x.is_infinite() { T::zero() } else { x };
    x.iter().map(fault).collect()
}

fn forward<T: Float>(pair: Pair<T>, options: Safe<T>, [a, b]: [&[T]; 2], q: &[T]) {
    let (name, [a_name, b_name, q_name, ..]) = (pair.names[0], pair.operands);
    let Outcome { written: [q], result } = everywhere(name, [q], |[q]| (pair.forward)(options, a, b, q));
    let refused = !fits(a, b) || q.len() != a.len() || !is_allowed(options);
    assert_eq!(is_refused(&result), refused, "{name}, {options:?}: {result:?}");
    if refused {
        return;
    }
    let inputs = [(a_name, Operand::Slice(a)), (b_name, Operand::Slice(b))];
    let inputs = inputs.into_iter().chain([("default", Operand::Scalar(options.default))]).collect::<Vec<_>>();
    check_report(&result, &inputs, &[(q_name, Operand::Slice(&q))], &[]);
    let each = spread(b, a.len());
    let is_guarded = |i: usize| pair.guards[0] && (pair.is_guarded)(options.eps, a[i], each[i]);
    check_count(name, &result, &[&q], (0..a.len()).filter(|&i| is_guarded(i)).count());
    let [faulty_a, faulty_b] = [a, b].map(|x| faults(pair, x));
    let slices: [&[_]; 2] = [&[(a_name, &faulty_a[..]), (b_name, &faulty_b[..])], &[(q_name, &q[..])]];
    check_first(&result, a.len(), slices, |i, _| !q[i].is_finite() && !is_guarded(i));
    for i in compared(a.len()) {
        let want = if is_guarded(i) { Exactly(options.default) } else { (pair.value)(a[i], each[i]) };
        want.check(q[i], || format!("{name} of {:e}, {:e}, {options:?}", a[i], each[i]));
    }
    let mut spread_q = q.clone();
    let _ = (pair.forward)(options, a, &each, &mut spread_q);
    assert_same(&format!("{name} of rows and of elements"), &q, &spread_q);
}

fn backward<T: Float>(pair: Pair<T>, options: Safe<T>, [a, b, g]: [&[T]; 3], outputs: [&[T]; 2]) {
    let (name, [a_name, b_name, _, da_name, db_name], eps) = (pair.names[1], pair.operands, options.eps);
    let f = |[da, db]: [&mut [T]; 2]| (pair.backward)(options, a, b, g, da, db);
    let Outcome { written: [da, db], result } = everywhere(name, outputs, f);
    let refused = !fits(a, b)
        || [g, &da].iter().any(|x| x.len() != a.len())
        || db.len() != b.len()
        || pair.has_options && !is_allowed(options);
    assert_eq!(is_refused(&result), refused, "{name}, {options:?}: {result:?}");
    if refused {
        return;
    }
    let inputs = [(a_name, a), (b_name, b), ("g", g)];
    let outputs = [(da_name, &da[..]), (db_name, &db[..])];
    let as_operands = |(name, x)| (name, Operand::Slice(x));
    check_report(&result, &inputs.map(as_operands), &outputs.map(as_operands), &[]);
    let each = spread(b, a.len());
    let is_guarded = |i: usize| (pair.is_guarded)(eps, a[i], each[i]);
    check_count(name, &result, &[&da, &db], (0..a.len()).filter(|&i| is_guarded(i)).count());
    let [faulty_a, faulty_b] = [a, b].map(|x| faults(pair, x));
    let inputs = [(a_name, &faulty_a[..]), (b_name, &faulty_b[..]), ("g", g)];
    check_first(&result, a.len(), [&inputs, &outputs], |i, x| {
        let is_bad = !da[i].is_finite() || !db[i % b.len()].is_finite();
        is_bad && !(pair.guards[1] && is_guarded(i)) && (!g[i].is_zero() || x.is_nan())
    });

    let [mut spread_da, mut terms] = [(); 2].map(|()| vec![T::zero(); a.len()]);
    let _ = (pair.backward)(options, a, &each, g, &mut spread_da, &mut terms);
    assert_same(&format!("{name} of rows and of elements"), &da, &spread_da);
    let want = |i: usize| {
        let (a, b, g) = (a[i], each[i], g[i]);
        match () {
            () if pair.guards[1] && (pair.is_guarded)(eps, a, b) => [Exactly(T::zero()); 2],
            () if g.is_zero() && !a.is_nan() && !b.is_nan() => [Want::zero(); 2],
            () => (pair.slopes)(a, b, g),
        }
    };
    for i in compared(a.len()) {
        let (want, (a, b, g)) = (want(i), (a[i], each[i], g[i]));
        let context = |k: usize| format!("{} of {name} of {a:e}, {b:e}, {g:e}, {options:?}", pair.operands[3 + k]);
        want[0].check(da[i], || context(0));
        want[1].check(terms[i], || context(1));
    }
    check_sums(name, &terms, &db, |i| want(i)[1]);
}

/// The gradient of a row is the sum over the rows, with its rounding errors kept: of what is wanted where that overflows.
fn check_sums<T: Float>(name: &str, terms: &[T], db: &[T], want: impl Fn(usize) -> Want<T>) {
    if db.len() == terms.len() {
        return assert_same(name, db, terms);
    }
    for (j, &got) in db.iter().enumerate().take(COMPARED) {
        let column: Vec<T> = terms.iter().copied().skip(j).step_by(db.len()).collect();
        if !all_finite(&column) {
            assert!(got.is_nan() || !column.iter().any(|x| x.is_nan()), "{name}: {got:e} is the sum of {column:?}");
            let true_terms = (j..terms.len()).step_by(db.len()).map(|i| want(i).as_wide(terms[i]));
            if column.len() <= COMPARED
                && let Some(true_terms) = true_terms.collect::<Option<Vec<_>>>()
            {
                // A number of units in the last place of each term, and of the sum.
                let (sum, size) = (total(true_terms.iter().copied()), total(true_terms.iter().map(|x| x.abs())));
                assert_near(&format!("{name}: the sum of {column:?}"), got, sum, ulps::<T>(4.0, size));
            }
            continue;
        }
        let magnitudes: Vec<T> = column.iter().map(|x| x.abs()).collect();
        let (sum, size) = (reference::sum(&column), reference::sum(&magnitudes));
        let (u, n) = (unit_roundoff::<T>(), column.len() as f64);
        let error = wide_of(u) * sum.abs() + wide_of(n * u) * wide_of(n * u) * size;
        assert_near(&format!("{name}: the sum of {column:?}"), got, sum, error);
    }
}

// --- Sums and dot products -------------------------------------------------------------------------------------------

fn sums_and_dot_products<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    let len = drawn_length(u)?;
    let (a, b, g) = (numbers::<T>(u, len)?, about::<T>(u, len)?, scalar::<T>(u)?);
    let result = everywhere("sum", [], |[]: [&mut [T]; 0]| sum(&a)).result;
    check_report(&result, &[("x", Operand::Slice(&a))], &[], &["sum"]);
    check_total("sum", &result, [&a, &vec![T::one(); len]]);
    let result = everywhere("dot", [], |[]: [&mut [T]; 0]| dot(&a, &b)).result;
    assert_eq!(is_refused(&result), b.len() != len, "{result:?}");
    check_report(&result, &[("a", Operand::Slice(&a)), ("b", Operand::Slice(&b))], &[], &["dot"]);
    if b.len() == len {
        check_total("dot", &result, [&a, &b]);
    }

    let (name, dx) = ("sum_backward", about::<T>(u, len)?);
    let Outcome { written: [dx], result } = everywhere(name, [&dx], |[dx]| sum_backward(g, dx));
    check_report(&result, &[("g", Operand::Scalar(g))], &[], &[]);
    assert_eq!(is_reported(&result), !g.is_finite(), "{name} of {g:e}: {result:?}");
    assert_same(name, &dx, &vec![g; dx.len()]);
    dot_gradients([&a, &b], g, [&about(u, len)?, &about(u, len)?]);
    Ok(())
}

/// The sum of the products of two slices, with all rounding errors kept.
fn check_total<T: Float>(name: &str, result: &Result<T>, [a, b]: [&[T]; 2]) {
    if !all_finite(a) || !all_finite(b) {
        return assert!(is_reported(result), "{name}: {result:?}");
    }
    let magnitudes = [a, b].map(|x| x.iter().map(|x| x.abs()).collect::<Vec<_>>());
    let (want, size) = (reference::dot(a, b), reference::dot(&magnitudes[0], &magnitudes[1]));
    let (u, n) = (unit_roundoff::<T>(), a.len() as f64);
    let error = wide_of(u) * want.abs() + wide_of(n * u) * wide_of(n * u) * size + wide_of(n) * smallest::<T>();
    assert_near(&format!("{name} of {a:?}, {b:?}"), value_or_infinity(result), want, error);
}

fn dot_gradients<T: Float>([a, b]: [&[T]; 2], g: T, outputs: [&[T]; 2]) {
    let name = "dot_backward";
    let f = |[da, db]: [&mut [T]; 2]| dot_backward(a, b, g, da, db);
    let Outcome { written: [da, db], result } = everywhere(name, outputs, f);
    let refused = [b, &da, &db].iter().any(|x| x.len() != a.len());
    assert_eq!(is_refused(&result), refused, "{result:?}");
    if refused {
        return;
    }
    let inputs = [("g", Operand::Scalar(g)), ("a", Operand::Slice(a)), ("b", Operand::Slice(b))];
    check_report(&result, &inputs, &[("da", Operand::Slice(&da)), ("db", Operand::Slice(&db))], &[]);
    let finite = g.is_finite() && all_finite(&da) && all_finite(&db);
    assert_eq!(is_reported(&result), !finite, "{name}: {result:?}");
    for (x, dx) in [(b, &da), (a, &db)] {
        let want: Vec<T> = x.iter().map(|&x| g * x).collect();
        assert_same(&format!("{name} of {x:?}, {g:e}"), dx, &want);
    }
}

// --- Losses ----------------------------------------------------------------------------------------------------------

/// What rounding to some ULP may lose of a number of this magnitude.
fn ulps<T: Float>(ulps: f64, size: Wide) -> Wide {
    wide_of(ulps) * (Wide::new(T::epsilon()) * size + smallest::<T>())
}

fn total(terms: impl Iterator<Item = Wide>) -> Wide {
    terms.fold(wide_of(0.0), |sum, term| sum + term)
}

/// A number that was returned, or infinity for a report.
#[track_caller]
fn value_or_infinity<T: Float>(result: &Result<T>) -> T {
    if is_reported(result) { T::infinity() } else { result.clone().unwrap() }
}

/// Holds a sum of losses to the sum of the true ones.
#[track_caller]
fn check_loss<T: Float>(context: &str, result: &Result<T>, want: Wide, error: Wide) {
    let got = value_or_infinity(result);
    if is_finite(want) {
        let rounding = ulps::<T>(1.0, want.abs());
        assert_near(context, got, want, error + rounding);
    } else {
        assert!(!got.is_finite(), "{context}: {got:e}");
    }
}

fn binary_losses<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    let len = drawn_length(u)?;
    let (x, mut t, g) = (numbers::<T>(u, len)?, about::<T>(u, len)?, scalar::<T>(u)?);
    if !u.ratio(1, 8)? {
        t.iter_mut().filter(|t| t.abs() > T::one()).for_each(|t| *t = t.recip());
        t.iter_mut().for_each(|t| *t = t.abs());
    }
    let reduction = if u.arbitrary()? { Reduction::Mean } else { Reduction::Sum };
    let name = "binary_cross_entropy";
    let f = |[]: [&mut [T]; 0]| binary_cross_entropy(reduction, &x, &t).map(|loss| (loss.value, loss.count));
    let result = everywhere(name, [], f).result;
    assert_eq!(is_refused(&result), t.len() != len, "{result:?}");
    let inputs = || [("logits", Operand::Slice(&x)), ("targets", Operand::Slice(&t))];
    check_report(&result, &inputs(), &[], &["losses", "loss"]);
    if t.len() == len {
        assert!(result.as_ref().map_or(true, |&(value, count)| value.is_finite() && count == len), "{result:?}");
        check_binary_loss(reduction, &x, &t, &result.map(|(value, _)| value));
    }

    let (name, dx) = ("binary_cross_entropy_backward", about::<T>(u, len)?);
    let f = |[dx]: [&mut [T]; 1]| binary_cross_entropy_backward(reduction, &x, &t, g, dx);
    let Outcome { written: [dx], result } = everywhere(name, [&dx], f);
    assert_eq!(is_refused(&result), t.len() != len || dx.len() != len, "{result:?}");
    if is_refused(&result) {
        return Ok(());
    }
    let inputs = inputs().into_iter().chain([("g", Operand::Scalar(g))]).collect::<Vec<_>>();
    check_report(&result, &inputs, &[("dlogits", Operand::Slice(&dx))], &[]);
    assert_eq!(is_reported(&result), !g.is_finite() || !all_finite(&dx), "{result:?}");
    let divisor = divisor(reduction, len);
    for i in compared(len).filter(|&i| is_probability(t[i])) {
        let (x, t) = (x[i], t[i]);
        let context = format!("{name} of {x:e}, {t:e}, {g:e}, over {len}");
        let want = reference::binary_cross_entropy_backward(x, t, g) / divisor;
        if !g.is_finite() {
            assert!(!dx[i].is_finite(), "{context}: {:e}", dx[i]);
        } else if t.is_zero() || t == T::one() || !is_finite(want) {
            assert_ulp(&context, dx[i], want, 3.0);
        } else {
            let (sigmoid, t) = (reference::sigmoid(x), Wide::new(t));
            let larger = if sigmoid < t { t } else { sigmoid };
            assert_near(&context, dx[i], want, ulps::<T>(3.0, Wide::new(g.abs()) * larger / divisor));
        }
    }
    Ok(())
}

fn is_probability<T: Float>(t: T) -> bool {
    (T::zero()..=T::one()).contains(&t) || t.is_nan()
}

fn divisor(reduction: Reduction, len: usize) -> Wide {
    wide_of(if reduction == Reduction::Mean { len.max(1) as f64 } else { 1.0 })
}

fn check_binary_loss<T: Float>(reduction: Reduction, x: &[T], t: &[T], result: &Result<T>) {
    if !t.iter().all(|&t| is_probability(t)) || x.len() > 2 * COMPARED {
        return;
    }
    let losses: Vec<_> = x.iter().zip(t).map(|(&x, &t)| reference::binary_cross_entropy(x, t)).collect();
    let divisor = divisor(reduction, x.len());
    let want = total(losses.iter().copied()) / divisor;
    let error = total(losses.iter().map(|&loss| ulps::<T>(2.0, loss))) / divisor;
    check_loss(&format!("binary_cross_entropy, {reduction:?} of {x:?}, {t:?}"), result, want, error);
}

fn divergences<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    let len = drawn_length(u)?;
    let (mut p, log_q, g) = (numbers::<T>(u, len)?, about::<T>(u, len)?, scalar::<T>(u)?);
    if !u.ratio(1, 8)? {
        p.iter_mut().for_each(|p| *p = p.abs());
    }
    let f = |[]: [&mut [T]; 0]| kl_divergence(&p, &log_q);
    let result = everywhere("kl_divergence", [], f).result;
    assert_eq!(is_refused(&result), log_q.len() != len, "{result:?}");
    let inputs = || [("p", Operand::Slice(&p)), ("log_q", Operand::Slice(&log_q))];
    check_report(&result, &inputs(), &[], &["terms", "divergence"]);
    if log_q.len() == len {
        check_divergence(&p, &log_q, &result);
    }

    let (name, dp, dlog_q) = ("kl_divergence_backward", about::<T>(u, len)?, about::<T>(u, len)?);
    let f = |[dp, dlog_q]: [&mut [T]; 2]| kl_divergence_backward(&p, &log_q, g, dp, dlog_q);
    let Outcome { written: [dp, dlog_q], result } = everywhere(name, [&dp, &dlog_q], f);
    let refused = [&log_q, &dp, &dlog_q].iter().any(|x| x.len() != len);
    assert_eq!(is_refused(&result), refused, "{result:?}");
    if refused {
        return Ok(());
    }
    let inputs = inputs().into_iter().chain([("g", Operand::Scalar(g))]).collect::<Vec<_>>();
    check_report(&result, &inputs, &[("dp", Operand::Slice(&dp)), ("dlog_q", Operand::Slice(&dlog_q))], &[]);
    assert_eq!(is_reported(&result), !g.is_finite() || !all_finite(&dp) || !all_finite(&dlog_q), "{result:?}");
    for i in compared(len) {
        let (p, log_q) = (p[i], log_q[i]);
        let context = format!("{name} of {p:e}, {log_q:e}, {g:e}");
        let want = if p.is_zero() { T::zero() } else { -(g * p) };
        assert!(same(dlog_q[i], want), "{context}: dlog_q is {:e}", dlog_q[i]);
        let [want, _] = reference::kl_divergence_backward(p, log_q, g);
        if p.is_zero() || (g.is_zero() && p > T::zero() && log_q == T::neg_infinity()) {
            assert!(dp[i].is_zero(), "{context}: dp is {:e}", dp[i]);
        } else if is_finite(want) {
            let size = (divergence_size(p, log_q) + wide_of(1.0)) * Wide::new(g).abs();
            assert_near(&context, dp[i], want, ulps::<T>(2.0, size));
        } else {
            assert!(!dp[i].is_finite(), "{context}: dp is {:e}", dp[i]);
        }
    }
    Ok(())
}

/// `|ln p| + |log_q|`; 0 where `p` is 0.
fn divergence_size<T: Float>(p: T, log_q: T) -> Wide {
    if p.is_zero() { wide_of(0.0) } else { Wide::new(p).ln().abs() + Wide::new(log_q).abs() }
}

fn check_divergence<T: Float>(p: &[T], log_q: &[T], result: &Result<T>) {
    if p.len() > 2 * COMPARED {
        return;
    }
    let terms = p.iter().zip(log_q).map(|(&p, &q)| reference::kl_divergence(p, q));
    let is_beyond = |term: Wide| is_finite(term) && term.abs() >= Wide::new(T::max_value());
    if terms.clone().any(is_beyond) {
        return; // that of no probability is
    }
    let sizes = p.iter().zip(log_q).map(|(&p, &q)| Wide::new(p) * divergence_size(p, q));
    let error = total(sizes.map(ulps_of_term::<T>));
    check_loss(&format!("kl_divergence of {p:?}, {log_q:?}"), result, total(terms), error);
}

fn ulps_of_term<T: Float>(size: Wide) -> Wide {
    ulps::<T>(2.0, size)
}

fuzz_target!(|data: &[u8]| {
    let u = &mut Unstructured::new(data);
    let _ = if u.arbitrary().unwrap_or(false) { run::<f64>(u) } else { run::<f32>(u) };
});
