//! The vector functions and the activations, on operands of any bits: errors, limits, reports, and the forms in place.

#![no_main]

use arbitrary::{Result as Drawn, Unstructured};
use libfuzzer_sys::fuzz_target;
use nanproof::math::{self, Function};
use nanproof::reference::{self, Wide};
use nanproof::*;
use nanproof_fuzz::*;

/// The function, its definition, and its largest errors in ULP, of `f32` and of `f64`.
type Case<T> = (Function, fn(&[T], &mut [T]) -> Result<()>, fn(T) -> Wide, [f64; 2]);

/// The same of functions with a parameter, which may not use it.
type Activation<T> = (&'static str, fn(T, &[T], &mut [T]) -> Result<()>, fn(T, T) -> Wide, [f64; 2]);

fn functions<T: Float>() -> [Case<T>; 13] {
    [
        (Function::Exp, math::exp, |x| Wide::new(x).exp(), [0.55, 1.0]),
        (Function::Exp2, math::exp2, reference::exp2, [0.55, 1.0]),
        (Function::ExpM1, math::exp_m1, |x| Wide::new(x).exp_m1(), [0.6, 1.0]),
        (Function::Ln, math::ln, |x| Wide::new(x).ln(), [0.6, 1.0]),
        (Function::Ln1p, math::ln_1p, |x| Wide::new(x).ln_1p(), [0.6, 1.0]),
        (Function::Log2, math::log2, reference::log2, [0.6, 1.0]),
        (Function::Tanh, tanh, reference::tanh, [1.0, 1.5]),
        (Function::Sigmoid, sigmoid, reference::sigmoid, [1.0, 1.5]),
        (Function::LogSigmoid, log_sigmoid, |x| -reference::softplus(-x), [1.0, 1.5]),
        (Function::Softplus, softplus, reference::softplus, [1.0, 1.5]),
        (Function::Erf, math::erf, reference::erf, [1.5, 1.5]),
        (Function::Erfc, math::erfc, reference::erfc, [1.5, 1.5]),
        (Function::Sqrt, math::sqrt, |x| Wide::new(x).sqrt(), [0.5, 0.5]),
    ]
}

fn activations<T: Float>() -> [Activation<T>; 10] {
    [
        ("relu", |_, x, y| relu(x, y), |_, x| reference::relu(x), [0.0; 2]),
        ("leaky_relu", leaky_relu, leaky_relu_definition, [0.5; 2]),
        ("elu", elu, elu_definition, [1.2; 2]),
        ("gelu", |_, x, y| gelu(x, y), |_, x| reference::gelu(x), [2.0; 2]),
        ("gelu_tanh", |_, x, y| gelu_tanh(x, y), |_, x| reference::gelu_tanh(x), [2.0; 2]),
        ("silu", |_, x, y| silu(x, y), |_, x| reference::silu(x), [1.0, 1.5]),
        ("mish", |_, x, y| mish(x, y), |_, x| reference::mish(x), [5.0; 2]),
        ("hard_sigmoid", |_, x, y| hard_sigmoid(x, y), |_, x| hard_sigmoid_definition(x), [1.0; 2]),
        ("hard_swish", |_, x, y| hard_swish(x, y), |_, x| hard_swish_definition(x), [2.0; 2]),
        ("hard_tanh", |_, x, y| hard_tanh(x, y), |_, x| Wide::new(bounded(x, -T::one(), T::one())), [0.0; 2]),
    ]
}

fn leaky_relu_definition<T: Float>(slope: T, x: T) -> Wide {
    if slope.is_zero() {
        reference::relu(x)
    } else {
        Wide::new(x) * Wide::new(if x > T::zero() { T::one() } else { slope })
    }
}

fn elu_definition<T: Float>(alpha: T, x: T) -> Wide {
    if alpha.is_zero() { reference::relu(x) } else { reference::elu(alpha, x) }
}

fn hard_sigmoid_definition<T: Float>(x: T) -> Wide {
    let bounded = bounded(x, num(-3.0), num(3.0));
    (Wide::new(bounded) + Wide::new(3.0_f64)) / Wide::new(6.0_f64)
}

fn hard_swish_definition<T: Float>(x: T) -> Wide {
    if x <= num(-3.0) { Wide::new(T::zero()) } else { Wide::new(x) * hard_sigmoid_definition(x) }
}

/// NaN stays NaN.
fn bounded<T: Float>(x: T, least: T, most: T) -> T {
    if x < least {
        least
    } else if x > most {
        most
    } else {
        x
    }
}

fn run<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    let long = u.ratio(1, 16)?;
    let len = length(u, if long { 3000 } else { 150 })?;
    let (x, y) = (numbers::<T>(u, len)?, about::<T>(u, len)?);
    let start = if len > 0 { u.choose_index(len)? } else { 0 };
    if u.arbitrary()? {
        let (function, f, definition, bounds) = *u.choose(&functions())?;
        let name = format!("{function:?}");
        let outcome = values(&name, f, definition, bounds, &x, &y, start);
        if let Some((y, result)) = outcome {
            exact_values(function, &x, &y);
            in_place(function, &x, &y, &result);
        }
    } else {
        let (name, f, definition, bounds) = *u.choose(&activations())?;
        let parameter = scalar::<T>(u)?;
        if ["leaky_relu", "elu"].contains(&name) && !parameter.is_finite() {
            assert!(is_refused(&everywhere(name, [&y], |[y]| f(parameter, &x, y)).result));
            return Ok(());
        }
        let name = format!("{name} with {parameter:e}");
        let definition = |x| definition(parameter, x);
        values(&name, |x, y| f(parameter, x, y), definition, bounds, &x, &y, start);
    }
    Ok(())
}

/// Checks what a function makes of `x`, and returns it if the lengths fit.
fn values<T: Float>(
    name: &str,
    f: impl Fn(&[T], &mut [T]) -> Result<()>,
    definition: impl Fn(T) -> Wide,
    bounds: [f64; 2],
    x: &[T],
    y: &[T],
    start: usize,
) -> Option<(Vec<T>, Result<()>)> {
    let Outcome { written: [y], result } = everywhere(name, [y], |[y]| f(x, y));
    assert_eq!(is_refused(&result), x.len() != y.len(), "{name}: {result:?}");
    if x.len() != y.len() {
        return None;
    }
    check_report(&result, &[("x", Operand::Slice(x))], &[("y", Operand::Slice(&y))], &[]);
    check_first_fault(name, x, &y, &result);
    assert!(x.iter().zip(&y).all(|(x, y)| y.is_nan() || !x.is_nan()), "{name} of {x:?} lost a NaN: {y:?}");

    // An element does not depend on its place.
    let mut part = vec![T::zero(); x.len() - start];
    let _ = f(&x[start..], &mut part);
    assert_same(&format!("{name} from element {start} on"), &part, &y[start..]);

    let bound = bounds[usize::from(T::LANES == 8)];
    for (&x, &y) in x.iter().zip(&y).rev().step_by(1 + x.len() / COMPARED) {
        let (context, want) = (format!("{name} of {x:e}"), definition(x));
        assert_ulp(&context, y, want, bound);
        let has_sign = y.is_zero() || y.is_nan() || (y > T::zero()) == (want > Wide::new(T::zero()));
        assert!(has_sign, "{context} is {y:e}");
    }
    Some((y, result))
}

/// The reference takes tens of microseconds an element.
const COMPARED: usize = 32;

/// There is a report if and only if a result is not finite: of the first that an operand brought with it, else of the
/// first that was born here.
fn check_first_fault<T: Float>(name: &str, x: &[T], y: &[T], result: &Result<()>) {
    let first = |is_passed_in| (0..y.len()).find(|&i| !y[i].is_finite() && x[i].is_finite() != is_passed_in);
    let found = match result {
        Err(Error::NonFinite(report)) => Some((report.index, report.origin == Origin::PassedIn)),
        _ => None,
    };
    let want = first(true).map(|i| (i, true)).or(first(false).map(|i| (i, false)));
    let want = want.map(|(i, is_passed_in)| (Index::At(i), is_passed_in));
    assert_eq!(found, want, "{name} of {x:?}: {y:?}");
}

/// What is documented to be exact.
fn exact_values<T: Float>(function: Function, x: &[T], y: &[T]) {
    for (&x, &y) in x.iter().zip(y) {
        let exponent = wide(x).log2();
        let exact = match function {
            Function::ExpM1 | Function::Ln1p | Function::Tanh | Function::Erf | Function::Sqrt if x.is_zero() => x,
            Function::Exp2 if x.is_finite() && x.fract().is_zero() => num(wide(x).exp2()),
            Function::Log2 if exponent.fract() == 0.0 && exponent.exp2() == wide(x) => num(exponent),
            _ => continue,
        };
        assert!(same(y, exact), "{function:?} of {x:e} is {y:e} and should be {exact:e}");
    }
}

fn in_place<T: Float>(function: Function, x: &[T], y: &[T], result: &Result<()>) {
    let name = format!("{function:?} in place");
    let Outcome { written: [z], result: found } = everywhere(&name, [x], |[x]| math::in_place(function, x));
    assert_eq!(format!("{found:?}"), format!("{result:?}"), "{name}");
    assert_same(&name, &z, if result.is_ok() { y } else { x });
}

fuzz_target!(|data: &[u8]| {
    let u = &mut Unstructured::new(data);
    let _ = if u.arbitrary().unwrap_or(false) { run::<f64>(u) } else { run::<f32>(u) };
});
