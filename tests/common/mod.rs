//! What the test suites share: data without a library and without transcendental functions, every operation behind one
//! signature, every instruction set, and the equality of bits.
#![allow(dead_code, reason = "each suite uses a part")]

use nanproof::reference::{Wide, ulp_error};
use nanproof::{
    Adam, AdamW, Clipping, CrossEntropy, EmptyRow, Error, Float, Isa, MatMut, MatRef, Matmul, NonFinite, OnFault,
    Reduction, Result, Safe, Sgd, Softmax, *,
};

/// Random numbers by integer arithmetic alone (`SplitMix64`).
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// In `[-1, 1)`, with the full fraction.
    pub(crate) fn unit<T: Float>(&mut self) -> T {
        num((self.bits() >> 11) as f64 * 2_f64.powi(-52) - 1.0)
    }
}

/// How numbers are drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// `[-c, c)`.
    Within(f64),
    /// Any sign, fraction and exponent: finite.
    AnyFinite,
    /// Within a factor of 16 of the largest number.
    Huge,
    /// Subnormal, or nearly.
    Tiny,
    /// Whole numbers from -8 to 8: ties, zeros, exact results.
    Whole,
    /// Mostly plain numbers, some infinite, NaN, zero, huge or subnormal.
    Special,
    /// Any bits at all.
    Bits,
}

pub(crate) const KINDS: [Kind; 7] =
    [Kind::Within(1.0), Kind::Within(30.0), Kind::AnyFinite, Kind::Huge, Kind::Tiny, Kind::Whole, Kind::Special];

pub(crate) fn draw<T: Float>(rng: &mut Rng, kind: Kind) -> T {
    let with_exponent = |rng: &mut Rng, from: u64, count: u64| {
        let fraction = rng.bits() & ((1 << T::FRACTION_BITS) - 1);
        let magnitude = T::from_bits((from + rng.bits() % count) << T::FRACTION_BITS | fraction);
        if rng.bits().is_multiple_of(2) { magnitude } else { -magnitude }
    };
    let top = 2 * T::BIAS as u64 + 1; // the exponent field of infinity
    match kind {
        Kind::Within(c) => rng.unit::<T>() * num(c),
        Kind::AnyFinite => with_exponent(rng, 0, top),
        Kind::Huge => with_exponent(rng, top - 4, 4),
        Kind::Tiny => with_exponent(rng, 0, 3),
        Kind::Whole => num(rng.below(17) as f64 - 8.0),
        Kind::Special => match rng.below(24) {
            0 => T::nan(),
            1 | 2 => T::neg_infinity(),
            3 => T::infinity(),
            4 => T::zero(),
            5 => -T::zero(),
            6 => draw(rng, Kind::Huge),
            7 => draw(rng, Kind::Tiny),
            _ => draw(rng, Kind::Within(10.0)),
        },
        Kind::Bits => T::from_bits(rng.bits()),
    }
}

pub(crate) fn data<T: Float>(seed: u64, kind: Kind, len: usize) -> Vec<T> {
    let mut rng = Rng(seed);
    (0..len).map(|_| draw(&mut rng, kind)).collect()
}

pub(crate) fn num<T: Float>(x: f64) -> T {
    T::from(x).expect("every f64 has a nearest number")
}

pub(crate) fn wide<T: Float>(x: T) -> f64 {
    x.to_f64().expect("every number fits")
}

pub(crate) fn nums<T: Float>(x: &[f64]) -> Vec<T> {
    x.iter().map(|&x| num(x)).collect()
}

/// A matrix of contiguous rows.
pub(crate) fn mat<T>(x: &[T], rows: usize, cols: usize) -> MatRef<'_, T> {
    MatRef::new(x, rows, cols).expect("as many elements as it says")
}

pub(crate) fn mat_mut<T>(x: &mut [T], rows: usize, cols: usize) -> MatMut<'_, T> {
    MatMut::new(x, rows, cols).expect("as many elements as it says")
}

/// The same bits, or both NaN.
pub(crate) fn same<T: Float>(a: T, b: T) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

#[track_caller]
pub(crate) fn assert_same<T: Float>(context: impl std::fmt::Display, got: &[T], want: &[T]) {
    assert_eq!(got.len(), want.len(), "{context}");
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        assert!(same(got, want), "{context}: element {i} is {got:e} and should be {want:e}");
    }
}

/// Runs `f` on every instruction set of this CPU.
pub(crate) fn on_every_isa(mut f: impl FnMut(Isa)) {
    for &isa in Isa::available() {
        isa.run(|| {
            f(isa);
            Ok(())
        })
        .expect("it is available");
    }
}

/// Runs `f` in both types on every instruction set: `everywhere!(name)` calls `name::<f32>()` and `name::<f64>()`.
#[macro_export]
macro_rules! everywhere {
    ($f:ident) => {
        common::on_every_isa(|_| {
            $f::<f32>();
            $f::<f64>();
        })
    };
}

/// The report of a failed call.
#[track_caller]
pub(crate) fn report<R: std::fmt::Debug>(result: Result<R>) -> NonFinite {
    match result {
        Err(Error::NonFinite(report)) => *report,
        other => panic!("should have reported a NaN or an infinity: {other:?}"),
    }
}

/// The largest error met, and where.
#[derive(Debug)]
pub(crate) struct Worst {
    pub(crate) what: String,
    pub(crate) ulp: f64,
    at: String,
}

impl Worst {
    pub(crate) fn of<T: Float>(what: &str) -> Self {
        Self { what: format!("{what} {}", std::any::type_name::<T>()), ulp: 0.0, at: String::new() }
    }

    pub(crate) fn meet(&mut self, error: f64, at: impl FnOnce() -> String) {
        if error.is_nan() || error > self.ulp {
            (self.ulp, self.at) = (error, at());
        }
    }

    pub(crate) fn compare<T: Float>(&mut self, got: &[T], want: &[Wide], context: &str) {
        assert_eq!(got.len(), want.len());
        for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
            self.meet(ulp_error(got, want), || format!("{context}, element {i}: {got:e} for {:e}", want.to_f64()));
        }
    }

    /// Prints the largest error and holds it to the documented bound.
    #[track_caller]
    pub(crate) fn assert_at_most(&self, bound: f64) {
        println!("| {} | {:.3} | {bound} | {}", self.what, self.ulp, self.at);
        assert!(self.ulp <= bound, "{} is {} and not within {bound}: {}", self.what, self.ulp, self.at);
    }
}

/// Operands of a call of any operation: three `rows x cols` arrays and a number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case<'a, T> {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) x: &'a [T],
    pub(crate) y: &'a [T],
    pub(crate) z: &'a [T],
    pub(crate) g: T,
}

/// What a call gave: everything that it wrote and returned, and its report.
#[derive(Clone, Debug)]
pub(crate) struct Outcome<T> {
    pub(crate) values: Vec<T>,
    pub(crate) error: Option<Error>,
}

impl<T: Float> Outcome<T> {
    #[track_caller]
    pub(crate) fn assert_same(&self, want: &Self, context: impl std::fmt::Display) {
        assert_same(&context, &self.values, &want.values);
        assert_eq!(self.error, want.error, "{context}");
    }
}

pub(crate) type Op<T> = (&'static str, fn(Case<'_, T>) -> Outcome<T>);

/// Every operation, on the operands of a case.
pub(crate) fn every_op<T: Float>() -> Vec<Op<T>> {
    vec![
        ("relu", |c| write([c.x.len()], |[y]| relu(c.x, y))),
        ("relu_backward", |c| write([c.x.len()], |[y]| relu_backward(c.x, c.y, y))),
        ("tanh", |c| write([c.x.len()], |[y]| tanh(c.x, y))),
        ("tanh_backward", |c| write([c.x.len()], |[y]| tanh_backward(c.x, c.y, y))),
        ("gelu", |c| write([c.x.len()], |[y]| gelu(c.x, y))),
        ("gelu_backward", |c| write([c.x.len()], |[dx]| gelu_backward(c.x, c.y, dx))),
        ("gelu_tanh", |c| write([c.x.len()], |[y]| gelu_tanh(c.x, y))),
        ("gelu_tanh_backward", |c| write([c.x.len()], |[dx]| gelu_tanh_backward(c.x, c.y, dx))),
        ("silu", |c| write([c.x.len()], |[y]| silu(c.x, y))),
        ("silu_backward", |c| write([c.x.len()], |[dx]| silu_backward(c.x, c.y, dx))),
        ("mish", |c| write([c.x.len()], |[y]| mish(c.x, y))),
        ("mish_backward", |c| write([c.x.len()], |[dx]| mish_backward(c.x, c.y, dx))),
        ("sigmoid", |c| write([c.x.len()], |[y]| sigmoid(c.x, y))),
        ("sigmoid_backward", |c| write([c.x.len()], |[dx]| sigmoid_backward(c.x, c.y, dx))),
        ("log_sigmoid", |c| write([c.x.len()], |[y]| log_sigmoid(c.x, y))),
        ("log_sigmoid_backward", |c| write([c.x.len()], |[dx]| log_sigmoid_backward(c.x, c.y, dx))),
        ("softplus", |c| write([c.x.len()], |[y]| softplus(c.x, y))),
        ("softplus_backward", |c| write([c.x.len()], |[dx]| softplus_backward(c.x, c.y, dx))),
        ("hard_sigmoid", |c| write([c.x.len()], |[y]| hard_sigmoid(c.x, y))),
        ("hard_sigmoid_backward", |c| write([c.x.len()], |[dx]| hard_sigmoid_backward(c.x, c.y, dx))),
        ("hard_swish", |c| write([c.x.len()], |[y]| hard_swish(c.x, y))),
        ("hard_swish_backward", |c| write([c.x.len()], |[dx]| hard_swish_backward(c.x, c.y, dx))),
        ("hard_tanh", |c| write([c.x.len()], |[y]| hard_tanh(c.x, y))),
        ("hard_tanh_backward", |c| write([c.x.len()], |[dx]| hard_tanh_backward(c.x, c.y, dx))),
        ("elu", |c| write([c.x.len()], |[y]| elu(c.g.abs(), c.x, y))),
        ("elu_backward", |c| write([c.x.len()], |[dx]| elu_backward(c.g.abs(), c.x, c.y, dx))),
        ("leaky_relu", |c| write([c.x.len()], |[y]| leaky_relu(c.g.abs(), c.x, y))),
        ("leaky_relu_backward", |c| write([c.x.len()], |[dx]| leaky_relu_backward(c.g.abs(), c.x, c.y, dx))),
        ("exp", |c| write([c.x.len()], |[y]| math::exp(c.x, y))),
        ("exp2", |c| write([c.x.len()], |[y]| math::exp2(c.x, y))),
        ("exp_m1", |c| write([c.x.len()], |[y]| math::exp_m1(c.x, y))),
        ("ln", |c| write([c.x.len()], |[y]| math::ln(c.x, y))),
        ("ln_1p", |c| write([c.x.len()], |[y]| math::ln_1p(c.x, y))),
        ("log2", |c| write([c.x.len()], |[y]| math::log2(c.x, y))),
        ("erf", |c| write([c.x.len()], |[y]| math::erf(c.x, y))),
        ("erfc", |c| write([c.x.len()], |[y]| math::erfc(c.x, y))),
        ("sqrt", |c| write([c.x.len()], |[y]| math::sqrt(c.x, y))),
        ("clip_by_value", |c| update([c.x], |[x]| clip_by_value(x, c.g.abs()))),
        ("clip_by_value_backward", |c| write([c.x.len()], |[y]| clip_by_value_backward(c.x, c.g.abs(), c.y, y))),
        ("clip_by_norm", |c| update([c.x], |[x]| clip_by_norm(x, c.g.abs()).map(|clip| wide(clip.norm)))),
        ("clip_by_global_norm", |c| {
            update([c.x, c.y], |[x, y]| clip_by_global_norm(&mut [x, y], c.g.abs()).map(|clip| wide(clip.norm)))
        }),
        ("clip_by_global_norm_with", |c| {
            let options = Clipping { loss_scale: num(0.25), on_fault: OnFault::Zero };
            update([c.x, c.y, &[T::zero(); 2]], |[x, y, norms]| {
                clip_by_global_norm_with(options, &mut [x, y], c.g.abs(), Some(norms)).map(|clip| wide(clip.norm))
            })
        }),
        ("clip_by_rms", |c| update([c.x], |[x]| clip_by_rms(x, c.g.abs()).map(|clip| wide(clip.norm)))),
        ("clip_rows_by_norm", |c| {
            update([c.x, &c.some_of_z(c.rows)], |[x, norms]| clip_rows_by_norm(c.matrix_mut(x), c.g.abs(), norms))
        }),
        ("clip_rows_with_norms", |c| {
            let norms = c.some_of_z(c.rows).into_iter().map(T::abs).collect::<Vec<_>>();
            update([c.x], |[x]| clip_rows_with_norms(c.matrix_mut(x), &norms, c.g.abs()))
        }),
        ("clip_unitwise", |c| update([c.x], |[g]| clip_unitwise(c.matrix(c.y), c.matrix_mut(g), c.g.abs(), num(1e-3)))),
        ("unscale", |c| update([c.x, c.y], |[x, y]| unscale(&mut [x, y], c.g.abs()).map(|clip| wide(clip.norm)))),
        ("norm_partial", |c| write([0], |[_]| NormPartial::of(c.x)?.merge(NormPartial::of(c.y)?).norm().map(wide))),
        ("check_finite", |c| write([0], |[_]| check_finite(c.x))),
        ("safe_div", |c| write([c.x.len()], |[q]| safe_div(c.x, c.y, q))),
        ("safe_div_with", |c| {
            write([c.x.len()], |[q]| safe_div_with(Safe { default: c.g, eps: T::zero() }, c.x, c.y, q))
        }),
        ("safe_div_backward", |c| write([c.x.len(); 2], |[da, db]| safe_div_backward(c.x, c.y, c.z, da, db))),
        ("safe_div_with, by one number", |c| {
            let options = Safe { default: c.g, eps: num(1e-3) };
            write([c.x.len()], |[q]| safe_div_with(options, c.x, &c.some_of_z(1), q))
        }),
        ("safe_div_backward, by a row", |c| {
            let b = &c.some_of_z(c.cols.min(c.x.len()));
            write([c.x.len(), b.len()], |[da, db]| safe_div_backward(c.x, b, c.y, da, db))
        }),
        ("safe_mul", |c| write([c.x.len()], |[p]| safe_mul(c.x, c.y, p))),
        ("safe_mul_backward", |c| write([c.x.len(); 2], |[da, db]| safe_mul_backward(c.x, c.y, c.z, da, db))),
        ("safe_recip", |c| write([c.x.len()], |[y]| safe_recip(Safe::default(), c.x, y))),
        ("safe_recip_backward", |c| write([c.x.len()], |[dx]| safe_recip_backward(Safe::default(), c.x, c.y, dx))),
        ("safe_sqrt", |c| write([c.x.len()], |[y]| safe_sqrt(Safe::default(), c.x, y))),
        ("safe_sqrt_backward", |c| write([c.x.len()], |[dx]| safe_sqrt_backward(Safe::default(), c.x, c.y, dx))),
        ("safe_rsqrt", |c| write([c.x.len()], |[y]| safe_rsqrt(Safe::default(), c.x, y))),
        ("safe_rsqrt_backward", |c| write([c.x.len()], |[dx]| safe_rsqrt_backward(Safe::default(), c.x, c.y, dx))),
        ("safe_ln", |c| write([c.x.len()], |[y]| safe_ln(Safe::default(), c.x, y))),
        ("safe_ln_backward", |c| write([c.x.len()], |[dx]| safe_ln_backward(Safe::default(), c.x, c.y, dx))),
        ("xlogy", |c| write([c.x.len()], |[z]| xlogy(c.x, c.y, z))),
        ("xlogy_backward", |c| write([c.x.len(); 2], |[dx, dy]| xlogy_backward(c.x, c.y, c.z, dx, dy))),
        ("xlog1py", |c| write([c.x.len()], |[z]| xlog1py(c.x, c.y, z))),
        ("xlog1py_backward", |c| write([c.x.len(); 2], |[dx, dy]| xlog1py_backward(c.x, c.y, c.z, dx, dy))),
        ("safe_pow", |c| write([c.x.len()], |[z]| safe_pow(Safe::default(), c.x, c.y, z))),
        ("safe_pow_backward", |c| {
            write([c.x.len(); 2], |[dx, dy]| safe_pow_backward(Safe::default(), c.x, c.y, c.z, dx, dy))
        }),
        ("atan2", |c| write([c.x.len()], |[angle]| atan2(c.x, c.y, angle))),
        ("atan2_backward", |c| write([c.x.len(); 2], |[dy, dx]| atan2_backward(c.x, c.y, c.z, dy, dx))),
        ("atan2_backward, by a row", |c| {
            let x = &c.some_of_z(c.cols.min(c.x.len()));
            write([c.x.len(), x.len()], |[dy, dx]| atan2_backward(c.x, x, c.y, dy, dx))
        }),
        ("l2_norm", |c| write([0], |[_]| l2_norm(c.x).map(wide))),
        ("l2_norm_backward", |c| write([c.x.len()], |[dx]| l2_norm_backward(c.x, c.g, dx))),
        ("sum", |c| write([0], |[_]| sum(c.x).map(wide))),
        ("sum_backward", |c| write([c.x.len()], |[dx]| sum_backward(c.g, dx))),
        ("dot", |c| write([0], |[_]| dot(c.x, c.y).map(wide))),
        ("dot_backward", |c| write([c.x.len(); 2], |[da, db]| dot_backward(c.x, c.y, c.g, da, db))),
        ("matmul", |c| {
            write([c.rows * c.rows], |[out]| {
                matmul(mat(c.x, c.rows, c.cols), mat(c.y, c.cols, c.rows), mat_mut(out, c.rows, c.rows))
            })
        }),
        ("matmul_with", |c| {
            let options = Matmul { alpha: c.g, beta: num(0.75) };
            update([&c.some_of_z(c.rows * c.rows)], |[out]| {
                matmul_with(options, mat(c.x, c.rows, c.cols), mat(c.y, c.cols, c.rows), mat_mut(out, c.rows, c.rows))
            })
        }),
        ("matmul_backward", |c| {
            let dc = &c.some_of_z(c.rows * c.rows);
            write([c.x.len(); 2], |[da, db]| {
                let (a, b) = (mat(c.x, c.rows, c.cols), mat(c.y, c.cols, c.rows));
                matmul_backward(a, b, mat(dc, c.rows, c.rows), mat_mut(da, c.rows, c.cols), mat_mut(db, c.cols, c.rows))
            })
        }),
        ("mean_rows", |c| write([c.rows], |[y]| mean_rows(c.matrix(c.x), y))),
        ("variance_rows", |c| write([c.rows], |[y]| variance_rows(Variance::default(), c.matrix(c.x), y))),
        ("std_rows", |c| write([c.rows], |[y]| std_rows(Variance::default(), c.matrix(c.x), y))),
        ("std_rows_backward", |c| {
            write([c.x.len()], |[dx]| {
                std_rows_backward(Variance::default(), c.matrix(c.x), &c.some_of_z(c.rows), c.matrix_mut(dx))
            })
        }),
        ("lp_norm_rows, p = 1", |c| write([c.rows], |[y]| lp_norm_rows(T::one(), c.matrix(c.x), y))),
        ("lp_norm_rows, p = 2", |c| write([c.rows], |[y]| lp_norm_rows(num(2.0), c.matrix(c.x), y))),
        ("lp_norm_rows, p = 3", |c| write([c.rows], |[y]| lp_norm_rows(num(3.0), c.matrix(c.x), y))),
        ("lp_norm_rows_backward, p = 2", |c| {
            write([c.x.len()], |[dx]| {
                lp_norm_rows_backward(num(2.0), c.matrix(c.x), &c.some_of_z(c.rows), c.matrix_mut(dx))
            })
        }),
        ("lp_norm_rows_backward, p = 1.5", |c| {
            write([c.x.len()], |[dx]| {
                lp_norm_rows_backward(num(1.5), c.matrix(c.x), &c.some_of_z(c.rows), c.matrix_mut(dx))
            })
        }),
        ("layer_norm", |c| {
            let (weight, bias) = (&c.some_of_z(c.cols), &c.some_of_z(c.cols));
            write([c.x.len()], |[y]| {
                layer_norm(LayerNorm::default(), c.matrix(c.x), Some(weight), Some(bias), c.matrix_mut(y))
            })
        }),
        ("layer_norm_backward", |c| {
            let weight = &c.some_of_z(c.cols);
            write([c.x.len(), c.cols, c.cols], |[dx, dw, db]| {
                let gradients = LayerNormGradients { dx: c.matrix_mut(dx), dw: Some(dw), db: Some(db) };
                layer_norm_backward(LayerNorm::default(), c.matrix(c.x), Some(weight), c.matrix(c.y), gradients)
            })
        }),
        ("rms_norm", |c| write([c.x.len()], |[y]| rms_norm(RmsNorm::default(), c.matrix(c.x), None, c.matrix_mut(y)))),
        ("rms_norm_backward", |c| {
            write([c.x.len(), c.cols], |[dx, dw]| {
                let (x, dy) = (c.matrix(c.x), c.matrix(c.y));
                rms_norm_backward(RmsNorm::default(), x, None, dy, c.matrix_mut(dx), Some(dw))
            })
        }),
        ("normalize", |c| write([c.x.len()], |[y]| normalize(T::zero(), c.matrix(c.x), c.matrix_mut(y)))),
        ("normalize_backward", |c| {
            write([c.x.len()], |[dx]| normalize_backward(T::zero(), c.matrix(c.x), c.matrix(c.y), c.matrix_mut(dx)))
        }),
        ("cosine_similarity", |c| write([c.rows], |[y]| cosine_similarity(c.matrix(c.x), c.matrix(c.y), y))),
        ("cosine_similarity_backward", |c| {
            write([c.x.len(); 2], |[da, db]| {
                let dy = &c.some_of_z(c.rows);
                cosine_similarity_backward(c.matrix(c.x), c.matrix(c.y), dy, c.matrix_mut(da), c.matrix_mut(db))
            })
        }),
        ("softmax", |c| write([c.x.len()], |[y]| softmax(c.matrix(c.x), c.matrix_mut(y)))),
        ("softmax_with", |c| {
            let options = Softmax { empty: EmptyRow::Uniform, ..Softmax::default() };
            write([c.x.len()], |[y]| softmax_with(options, c.matrix(c.x), c.matrix_mut(y)))
        }),
        ("softmax_with, scaled and masked", |c| {
            let (mask, bias) = (c.mask(), c.some_of_z(c.x.len()));
            write([c.x.len()], |[y]| softmax_with(c.masked(&mask, &bias), c.matrix(c.x), c.matrix_mut(y)))
        }),
        ("softmax_in_place", |c| update([c.x], |[x]| softmax_in_place(Softmax::default(), c.matrix_mut(x)))),
        ("softmax_in_place, scaled and masked", |c| {
            let (mask, bias) = (c.mask(), c.some_of_z(c.x.len()));
            update([c.x], |[x]| softmax_in_place(c.masked(&mask, &bias), c.matrix_mut(x)))
        }),
        ("softmax_backward", |c| {
            write([c.x.len(); 2], |[p, dx]| {
                softmax(c.matrix(c.x), c.matrix_mut(p))?;
                softmax_backward(c.matrix(p), c.matrix(c.y), c.matrix_mut(dx))
            })
        }),
        ("softmax_backward_with", |c| {
            let options = Softmax { scale: num(0.7), ..Softmax::default() };
            write([c.x.len(); 2], |[p, dx]| {
                softmax_with(options, c.matrix(c.x), c.matrix_mut(p))?;
                softmax_backward_with(options, c.matrix(p), c.matrix(c.y), c.matrix_mut(dx))
            })
        }),
        ("log_softmax", |c| write([c.x.len()], |[y]| log_softmax(c.matrix(c.x), c.matrix_mut(y)))),
        ("log_softmax_with", |c| {
            let (mask, bias) = (c.mask(), c.some_of_z(c.x.len()));
            write([c.x.len()], |[y]| log_softmax_with(c.masked(&mask, &bias), c.matrix(c.x), c.matrix_mut(y)))
        }),
        ("log_softmax_backward_with", |c| {
            let options = Softmax { scale: num(0.7), ..Softmax::default() };
            write([c.x.len(); 2], |[y, dx]| {
                log_softmax_with(options, c.matrix(c.x), c.matrix_mut(y))?;
                log_softmax_backward_with(options, c.matrix(y), c.matrix(c.y), c.matrix_mut(dx))
            })
        }),
        ("log_softmax_backward", |c| {
            write([c.x.len(); 2], |[y, dx]| {
                log_softmax(c.matrix(c.x), c.matrix_mut(y))?;
                log_softmax_backward(c.matrix(y), c.matrix(c.y), c.matrix_mut(dx))
            })
        }),
        ("logsumexp", |c| write([c.rows], |[y]| logsumexp(c.matrix(c.x), y))),
        ("logsumexp_backward", |c| {
            write([c.x.len()], |[dx]| logsumexp_backward(c.matrix(c.x), &c.some_of_z(c.rows), c.matrix_mut(dx)))
        }),
        ("logsumexp_with", |c| {
            let (mask, bias) = (c.mask(), c.some_of_z(c.x.len()));
            write([c.rows], |[y]| logsumexp_with(c.masked(&mask, &bias), c.matrix(c.x), y))
        }),
        ("logsumexp_backward_with", |c| {
            let (mask, bias) = (c.mask(), c.some_of_z(c.x.len()));
            write([c.x.len()], |[dx]| {
                let dy = c.some_of_z(c.rows);
                logsumexp_backward_with(c.masked(&mask, &bias), c.matrix(c.x), &dy, c.matrix_mut(dx))
            })
        }),
        ("logsumexp_weighted", |c| {
            write([c.rows; 2], |[y, sign]| logsumexp_weighted(c.matrix(c.x), c.matrix(c.y), y, sign))
        }),
        ("logsumexp_weighted_backward", |c| {
            write([c.x.len()], |[dx]| {
                let dy = c.some_of_z(c.rows);
                logsumexp_weighted_backward(c.matrix(c.x), c.matrix(c.y), &dy, c.matrix_mut(dx))
            })
        }),
        ("cross_entropy", |c| {
            write([0], |[_]| cross_entropy(c.options(), c.matrix(c.x), &c.targets()).map(|loss| wide(loss.value)))
        }),
        ("cross_entropy_backward", |c| {
            write([c.x.len()], |[dx]| {
                cross_entropy_backward(c.options(), c.matrix(c.x), &c.targets(), c.g, c.matrix_mut(dx))
            })
        }),
        ("cross_entropy_with_gradient", |c| {
            let options = CrossEntropy { reduction: Reduction::Sum, ..c.options() };
            write([c.x.len()], |[dx]| {
                cross_entropy_with_gradient(options, c.matrix(c.x), &c.targets(), c.matrix_mut(dx))
                    .map(|loss| wide(loss.value))
            })
        }),
        ("cross_entropy_in_place", |c| {
            update([c.x], |[x]| {
                cross_entropy_in_place(c.options(), c.matrix_mut(x), &c.targets()).map(|loss| wide(loss.value))
            })
        }),
        ("cross_entropy, smooth and weighted", |c| {
            let (mask, weights) = (c.mask(), c.some_of_z(c.cols).into_iter().map(T::abs).collect::<Vec<_>>());
            let options = c.smooth(&mask, &weights);
            write([c.x.len()], |[dx]| {
                cross_entropy_with_gradient(options, c.matrix(c.x), &c.targets(), c.matrix_mut(dx))
                    .map(|loss| wide(loss.value))
            })
        }),
        ("soft cross_entropy", |c| {
            write([c.x.len()], |[dx]| {
                cross_entropy_with_gradient(CrossEntropy::default(), c.matrix(c.x), c.matrix(c.y), c.matrix_mut(dx))
                    .map(|loss| wide(loss.value))
            })
        }),
        ("softmax_entropy", |c| write([c.rows], |[h]| softmax_entropy(c.matrix(c.x), h))),
        ("softmax_entropy_backward", |c| {
            write([c.x.len()], |[dx]| softmax_entropy_backward(c.matrix(c.x), &c.some_of_z(c.rows), c.matrix_mut(dx)))
        }),
        ("binary_cross_entropy", |c| {
            write([0], |[_]| binary_cross_entropy(Reduction::Mean, c.x, c.y).map(|loss| wide(loss.value)))
        }),
        ("binary_cross_entropy_backward", |c| {
            write([c.x.len()], |[dx]| binary_cross_entropy_backward(Reduction::Mean, c.x, c.y, c.g, dx))
        }),
        ("kl_divergence", |c| write([0], |[_]| kl_divergence(c.x, c.y).map(wide))),
        ("kl_divergence_backward", |c| {
            write([c.x.len(); 2], |[dp, dlog_q]| kl_divergence_backward(c.x, c.y, c.g, dp, dlog_q))
        }),
        ("max_rows", |c| write([c.rows], |[y]| max_rows(c.matrix(c.x), y))),
        ("min_rows", |c| write([c.rows], |[y]| min_rows(c.matrix(c.x), y))),
        ("max_rows_backward", |c| {
            write([c.x.len()], |[dx]| max_rows_backward(c.matrix(c.x), &c.some_of_z(c.rows), c.matrix_mut(dx)))
        }),
        ("min_rows_backward", |c| {
            write([c.x.len()], |[dx]| min_rows_backward(c.matrix(c.x), &c.some_of_z(c.rows), c.matrix_mut(dx)))
        }),
        ("argmax_rows", |c| {
            write([c.rows], |[columns]| {
                let mut places = vec![0; c.rows];
                let result = argmax_rows(c.matrix(c.x), &mut places);
                columns.iter_mut().zip(places).for_each(|(column, place)| *column = num(place as f64));
                result
            })
        }),
        ("sgd", |c| {
            let sgd = Sgd { learning_rate: num(0.1), momentum: num(0.9), weight_decay: num(0.01) };
            update([c.x, c.z], |[w, v]| sgd.step(w, c.y, v))
        }),
        ("adamw", |c| {
            let squares = &c.z.iter().map(|z| z.abs()).collect::<Vec<_>>();
            update([c.x, c.z, squares], |[w, m, v]| AdamW::default().step(3, w, c.y, m, v))
        }),
        ("adam", |c| {
            let squares = &c.z.iter().map(|z| z.abs()).collect::<Vec<_>>();
            let adam = Adam { weight_decay: num(0.01), ..Adam::default() };
            update([c.x, c.z, squares], |[w, m, v]| adam.step(3, w, c.y, m, v))
        }),
    ]
}

impl<'a, T: Float> Case<'a, T> {
    fn matrix<'b>(&self, x: &'b [T]) -> MatRef<'b, T> {
        mat(x, self.rows, self.cols)
    }

    fn matrix_mut<'b>(&self, x: &'b mut [T]) -> MatMut<'b, T> {
        mat_mut(x, self.rows, self.cols)
    }

    /// As many numbers of `z` as wanted, from the start again where there are no more, ones where there are none.
    fn some_of_z(&self, len: usize) -> Vec<T> {
        let one = [T::one()];
        let z = if self.z.is_empty() { &one } else { self.z };
        z.iter().copied().cycle().take(len).collect()
    }

    /// Every fifth element is masked.
    fn mask(&self) -> Vec<bool> {
        (0..self.x.len()).map(|i| i % 5 != 3).collect()
    }

    fn masked<'b>(&self, mask: &'b [bool], bias: &'b [T]) -> Softmax<'b, T> {
        let mask = Some(MatRef::new(mask, self.rows, self.cols).expect("an element each"));
        Softmax { scale: num(0.7), bias: Some(self.matrix(bias)), mask, causal: Some(3), ..Softmax::default() }
    }

    fn smooth<'b>(&self, mask: &'b [bool], weights: &'b [T]) -> CrossEntropy<'b, T> {
        CrossEntropy {
            smoothing: num(0.1),
            weights: Some(weights),
            z_loss: num(1e-3),
            mask: Some(MatRef::new(mask, self.rows, self.cols).expect("an element each")),
            ..CrossEntropy::default()
        }
    }

    /// Target 0 is ignored.
    fn options(&self) -> CrossEntropy<'_, T> {
        CrossEntropy { ignore: Some(0), reduction: Reduction::Mean, ..CrossEntropy::default() }
    }

    fn targets(&self) -> Vec<u32> {
        (0..self.rows).map(|i| (i * 7 % self.cols.max(1)) as u32).collect()
    }
}

/// What an operation returns beside its outputs.
pub(crate) trait Returned {
    fn number(self) -> Option<f64>;
}

impl Returned for () {
    fn number(self) -> Option<f64> {
        None
    }
}

impl Returned for f64 {
    fn number(self) -> Option<f64> {
        Some(self)
    }
}

impl Returned for usize {
    fn number(self) -> Option<f64> {
        Some(self as f64)
    }
}

/// Calls `f` with outputs of these lengths, full of NaN.
fn write<T: Float, R: Returned, const N: usize>(
    lens: [usize; N],
    f: impl FnOnce([&mut [T]; N]) -> Result<R>,
) -> Outcome<T> {
    gather(lens.map(|len| vec![T::nan(); len]), f)
}

/// Calls `f` with copies of operands that it changes.
fn update<T: Float, R: Returned, const N: usize>(
    operands: [&[T]; N],
    f: impl FnOnce([&mut [T]; N]) -> Result<R>,
) -> Outcome<T> {
    gather(operands.map(<[T]>::to_vec), f)
}

fn gather<T: Float, R: Returned, const N: usize>(
    mut outputs: [Vec<T>; N],
    f: impl FnOnce([&mut [T]; N]) -> Result<R>,
) -> Outcome<T> {
    let result = f(outputs.each_mut().map(Vec::as_mut_slice));
    let mut values = outputs.concat();
    match result {
        Ok(number) => {
            values.extend(number.number().map(num::<T>));
            Outcome { values, error: None }
        }
        Err(error) => Outcome { values, error: Some(error) },
    }
}
