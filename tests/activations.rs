//! The vector functions of slices and the activations: against the reference in both types on every instruction set, at
//! the special points, in place, with the reports that they owe.

mod common;

use common::{Kind, Worst, assert_same, data, num, nums, on_every_isa, report, wide};
use nanproof::math::{self, Function};
use nanproof::reference::{self, Wide};
use nanproof::{
    Class, Error, Float, Index, Origin, Result, elu, elu_backward, gelu, gelu_backward, gelu_tanh, gelu_tanh_backward,
    hard_sigmoid, hard_sigmoid_backward, hard_swish, hard_swish_backward, hard_tanh, hard_tanh_backward, leaky_relu,
    leaky_relu_backward, log_sigmoid, log_sigmoid_backward, mish, mish_backward, sigmoid, sigmoid_backward, silu,
    silu_backward, softplus, softplus_backward, tanh, tanh_backward,
};

const INF: f64 = f64::INFINITY;

type Forward<T> = fn(&[T], &mut [T]) -> Result<()>;
type Backward<T> = fn(&[T], &[T], &mut [T]) -> Result<()>;

/// A smooth activation: name, both directions, their definitions, and their largest errors in ULP.
type Smooth<T> = (&'static str, Forward<T>, Backward<T>, fn(T) -> Wide, fn(T, T) -> Wide, [f64; 2]);

fn smooth<T: Float>() -> Vec<Smooth<T>> {
    vec![
        ("sigmoid", sigmoid, sigmoid_backward, reference::sigmoid, reference::sigmoid_backward, [1.0, 4.0]),
        ("silu", silu, silu_backward, reference::silu, reference::silu_backward, [1.5, 8.0]),
        ("softplus", softplus, softplus_backward, reference::softplus, reference::softplus_backward, [1.0, 4.0]),
        (
            "log_sigmoid",
            log_sigmoid,
            log_sigmoid_backward,
            |x| -reference::softplus(-x),
            |x, dy| reference::softplus_backward(-x, dy),
            [1.0, 4.0],
        ),
        ("gelu", gelu, gelu_backward, reference::gelu, reference::gelu_backward, [2.0, 8.0]),
        ("gelu_tanh", gelu_tanh, gelu_tanh_backward, reference::gelu_tanh, reference::gelu_tanh_backward, [3.0, 8.0]),
        ("mish", mish, mish_backward, reference::mish, reference::mish_backward, [5.0, 8.0]),
        ("tanh", tanh, tanh_backward, reference::tanh, reference::tanh_backward, [1.0, 4.0]),
    ]
}

/// Plain numbers, large ones of either sign, where tails underflow, tiny ones, and where `1 + x` is nearly 1.
fn inputs<T: Float>() -> Vec<T> {
    let mut x = data::<T>(1, Kind::Within(1.0), 300);
    x.extend(data::<T>(2, Kind::Within(12.0), 300));
    x.extend(data::<T>(3, Kind::Within(110.0), 200));
    x.extend(data::<T>(4, Kind::Within(800.0), 200));
    x.extend(data::<T>(5, Kind::Tiny, 40));
    x.extend(data::<T>(6, Kind::Huge, 40));
    x.extend(data::<T>(7, Kind::Within(8.0 * wide(T::epsilon())), 60));
    x
}

/// The error in ULP, or in the least change that rounding the terms of a sum may make, where they cancel.
fn accuracy<T: Float>() {
    let x = inputs::<T>();
    for (name, forward, backward, value, gradient, [goal, gradient_goal]) in smooth::<T>() {
        let [mut worst, mut worst_gradient] = [name, &format!("{name}_backward")].map(Worst::of::<T>);
        let dy = num::<T>(-1.5);
        let want = x.iter().map(|&x| value(x)).collect::<Vec<_>>();
        let want_gradient = x.iter().map(|&x| gradient(x, dy)).collect::<Vec<_>>();
        on_every_isa(|isa| {
            let (mut y, mut dx) = (vec![T::nan(); x.len()], vec![T::nan(); x.len()]);
            let _ = forward(&x, &mut y);
            backward(&x, &vec![dy; x.len()], &mut dx).expect(name);
            worst.compare(&y, &want, &isa.to_string());
            for (i, (&dx, &want)) in dx.iter().zip(&want_gradient).enumerate() {
                // Where a gradient crosses zero its two terms cancel.
                let has_zero = ["gelu", "gelu_tanh", "silu", "mish"].contains(&name);
                let crosses = has_zero && want.abs().to_f64() < 0.25 && (0.3..3.0).contains(&wide(x[i]).abs());
                let ulp = reference::ulp_error(dx, want);
                let share = if crosses { (Wide::new(dx) - want).abs().to_f64() / wide(T::epsilon()) } else { ulp };
                worst_gradient.meet(share, || format!("{isa}, {:e}: {dx:e} for {:e}", x[i], want.to_f64()));
            }
        });
        worst.assert_at_most(goal);
        worst_gradient.assert_at_most(gradient_goal);
    }
}

#[test]
fn smooth_activations() {
    accuracy::<f32>();
    accuracy::<f64>();
}

/// With factors and upstream gradients at the ends of the range, where only the product of all is in it.
fn elus<T: Float>() {
    let (x, ends) = (inputs::<T>(), [T::max_value(), T::min_positive_value()]);
    let [mut worst, mut worst_gradient] = ["elu", "elu_backward"].map(Worst::of::<T>);
    for alpha in [T::one(), num(0.95), num(12.75), ends[0], ends[1]] {
        let want = x.iter().map(|&x| reference::elu(alpha, x)).collect::<Vec<_>>();
        let slope = |x: T| if x > T::zero() { Wide::new(T::one()) } else { Wide::new(alpha) * Wide::new(x).exp() };
        let slopes = x.iter().map(|&x| slope(x)).collect::<Vec<_>>();
        on_every_isa(|isa| {
            let mut y = vec![T::nan(); x.len()];
            let _ = elu(alpha, &x, &mut y);
            worst.compare(&y, &want, &format!("{isa}, alpha {alpha:e}"));
            for dy in [T::one(), num(-0.3), ends[0], ends[1]] {
                let _ = elu_backward(alpha, &x, &vec![dy; x.len()], &mut y);
                let want = slopes.iter().map(|&slope| Wide::new(dy) * slope).collect::<Vec<_>>();
                worst_gradient.compare(&y, &want, &format!("{isa}, alpha {alpha:e}, dy {dy:e}"));
            }
        });
    }
    worst.assert_at_most(1.2);
    worst_gradient.assert_at_most(2.5);
}

#[test]
fn exponential_linear_units() {
    elus::<f32>();
    elus::<f64>();
}

fn piecewise<T: Float>() {
    let x = nums::<T>(&[-INF, -1e30, -4.0, -3.0, -1.5, -1.0, -0.25, -0.0, 0.0, 0.25, 1.0, 1.5, 3.0, 4.0]);
    let dy = vec![num::<T>(2.0); x.len()];
    type Call<'a, T> = &'a dyn Fn(&[T], &mut [T]) -> Result<()>;
    let check = |name: &str, forward: Call<'_, T>, want: &dyn Fn(f64) -> f64| {
        let mut y = vec![T::nan(); x.len()];
        forward(&x, &mut y).expect(name);
        for (&x, &y) in x.iter().zip(&y) {
            let want = want(wide(x));
            let is_right = y == num(want) || (wide(y) - want).abs() <= 2.0 * wide(T::epsilon()) * want.abs();
            assert!(is_right, "{name}({x:e}) = {y:e}, not {want:e}");
        }
    };
    check("hard_sigmoid", &hard_sigmoid, &|x| ((x + 3.0) / 6.0).clamp(0.0, 1.0));
    check("hard_swish", &hard_swish, &|x| if x <= -3.0 { 0.0 } else { x * ((x + 3.0) / 6.0).clamp(0.0, 1.0) });
    check("hard_tanh", &hard_tanh, &|x| x.clamp(-1.0, 1.0));
    let finite = |x: &T| x.is_finite();
    let tame = x.iter().copied().filter(finite).collect::<Vec<_>>();
    let mut y = vec![T::nan(); tame.len()];
    leaky_relu(num(0.25), &tame, &mut y).expect("finite");
    assert!(tame.iter().zip(&y).all(|(&x, &y)| y == if x > T::zero() { x } else { x * num(0.25) }));

    check("hard_sigmoid_backward", &|x, dx| hard_sigmoid_backward(x, &dy, dx), &|x| {
        if x.abs() < 3.0 { 2.0 / 6.0 } else { 0.0 }
    });
    check("hard_tanh_backward", &|x, dx| hard_tanh_backward(x, &dy, dx), &|x| if x.abs() < 1.0 { 2.0 } else { 0.0 });
    check("hard_swish_backward", &|x, dx| hard_swish_backward(x, &dy, dx), &|x| match x {
        x if x <= -3.0 => 0.0,
        x if x >= 3.0 => 2.0,
        x => 2.0 * (2.0 * x + 3.0) / 6.0,
    });
    check("leaky_relu_backward", &|x, dx| leaky_relu_backward(num(0.25), x, &dy, dx), &|x| {
        if x > 0.0 { 2.0 } else { 0.5 }
    });
    check("elu", &|x, y| elu(num(1.5), x, y), &|x| if x > 0.0 { x } else { 1.5 * x.exp_m1() });
    check("elu_backward", &|x, dx| elu_backward(T::one(), x, &dy, dx), &|x| if x > 0.0 { 2.0 } else { 2.0 * x.exp() });
}

#[test]
fn activations_in_pieces() {
    everywhere!(piecewise);
}

/// The limits at infinity, for values and gradients.
fn limits<T: Float>() {
    let (zero, one, inf) = (T::zero(), T::one(), T::infinity());
    type Limits<T> = (&'static str, Forward<T>, Backward<T>, [T; 2], [T; 2]);
    let limits: [Limits<T>; 11] = [
        ("sigmoid", sigmoid, sigmoid_backward, [zero, one], [zero, zero]),
        ("silu", silu, silu_backward, [zero, inf], [zero, one]),
        ("softplus", softplus, softplus_backward, [zero, inf], [zero, one]),
        ("log_sigmoid", log_sigmoid, log_sigmoid_backward, [-inf, zero], [one, zero]),
        ("gelu", gelu, gelu_backward, [zero, inf], [zero, one]),
        ("gelu_tanh", gelu_tanh, gelu_tanh_backward, [zero, inf], [zero, one]),
        ("mish", mish, mish_backward, [zero, inf], [zero, one]),
        ("tanh", tanh, tanh_backward, [-one, one], [zero, zero]),
        ("hard_sigmoid", hard_sigmoid, hard_sigmoid_backward, [zero, one], [zero, zero]),
        ("hard_swish", hard_swish, hard_swish_backward, [zero, inf], [zero, one]),
        ("hard_tanh", hard_tanh, hard_tanh_backward, [-one, one], [zero, zero]),
    ];
    for (name, forward, backward, values, gradients) in limits {
        for (x, value, gradient) in [(-inf, values[0], gradients[0]), (inf, values[1], gradients[1])] {
            for len in [1, 15, 16, 17, 40] {
                let (x, mut y, mut dx) = (vec![x; len], vec![T::nan(); len], vec![T::nan(); len]);
                assert_eq!(forward(&x, &mut y).is_err(), value.is_infinite(), "{name}");
                assert!(y.iter().all(|&y| y == value), "{name}({:e}) = {:e}", x[0], y[0]);
                backward(&x, &vec![one; len], &mut dx).expect(name);
                assert!(dx.iter().all(|&dx| dx == gradient), "{name}'({:e}) = {:e}", x[0], dx[0]);
                // A gradient of 0 stays 0, and a NaN stays NaN, in every lane.
                backward(&x, &vec![zero; len], &mut dx).expect(name);
                assert!(dx.iter().all(|dx| dx.is_zero()), "{name}, dy = 0");
            }
        }
        for len in [1, 16, 17, 33] {
            for at in [0, len / 2, len - 1] {
                let mut x = vec![one; len];
                x[at] = T::nan();
                let (mut y, mut dx) = (vec![zero; len], vec![zero; len]);
                let found = report(forward(&x, &mut y));
                assert_eq!((found.index, found.class, found.origin), (Index::At(at), Class::Nan, Origin::PassedIn));
                assert!(y[at].is_nan() && backward(&x, &vec![one; len], &mut dx).is_err() && dx[at].is_nan(), "{name}");
            }
        }
    }
}

#[test]
fn limits_of_activations() {
    everywhere!(limits);
}

fn functions<T: Float>() {
    type Case<T> = (&'static str, Function, Forward<T>, fn(T) -> Wide, f64);
    let cases: [Case<T>; 8] = [
        ("exp", Function::Exp, math::exp, |x| Wide::new(x).exp(), 0.6),
        ("exp2", Function::Exp2, math::exp2, reference::exp2, 0.6),
        ("exp_m1", Function::ExpM1, math::exp_m1, |x| Wide::new(x).exp_m1(), 1.0),
        ("ln", Function::Ln, math::ln, |x| Wide::new(x).ln(), 0.6),
        ("ln_1p", Function::Ln1p, math::ln_1p, |x| Wide::new(x).ln_1p(), 0.6),
        ("log2", Function::Log2, math::log2, reference::log2, 0.6),
        ("erf", Function::Erf, math::erf, reference::erf, 1.5),
        ("erfc", Function::Erfc, math::erfc, reference::erfc, 1.5),
    ];
    for (name, function, of, definition, goal) in cases {
        let is_logarithm = name.starts_with("l");
        let tame = |x: &T| if is_logarithm { *x > T::zero() } else { x.abs() < num(80.0) };
        let x = inputs::<T>().into_iter().filter(tame).collect::<Vec<_>>();
        let want = x.iter().map(|&x| definition(x)).collect::<Vec<_>>();
        let mut worst = Worst::of::<T>(name);
        on_every_isa(|isa| {
            let mut y = vec![T::nan(); x.len()];
            of(&x, &mut y).expect(name);
            worst.compare(&y, &want, &isa.to_string());
            let mut in_place = x.clone();
            math::in_place(function, &mut in_place).expect(name);
            assert_same(name, &in_place, &y);
        });
        worst.assert_at_most(goal);
    }
    // In place: as it was, where a result would not be finite.
    let mut x = data::<T>(1, Kind::Within(1.0), 40);
    x[37] = num(1e4);
    let before = x.clone();
    let found = report(math::in_place(Function::Exp, &mut x));
    assert_eq!((found.index, found.class, found.origin), (Index::At(37), Class::PosInf, Origin::Overflow));
    assert_same("as it was", &x, &before);
    let found = report(math::ln(&nums::<T>(&[1.0, -1.0]), &mut [T::nan(); 2]));
    assert_eq!((found.index, found.class, found.origin), (Index::At(1), Class::Nan, Origin::Invalid));
    assert!(matches!(math::exp(&[T::one()], &mut []), Err(Error::Shape { .. })));
}

#[test]
fn vector_functions() {
    functions::<f32>();
    functions::<f64>();
}
