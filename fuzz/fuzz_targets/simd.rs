//! Every operation gives the same bits on every instruction set, and a fused multiply-add as the C library has it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nanproof::Float;
#[cfg(target_arch = "x86_64")]
use nanproof::internal::{Avx2, Avx512};
use nanproof::internal::{Baseline, Kernel, Simd};

#[derive(Debug, arbitrary::Arbitrary)]
struct Input {
    f32: [[u32; 16]; 3],
    f64: [[u64; 8]; 3],
    shift: u8,
}

/// Every operation on the same three blocks.
#[derive(Clone, Copy)]
struct Everything<'a, T: Float> {
    operands: &'a [T::Block; 3],
    shift: u32,
}

type Results = Vec<(&'static str, Vec<u64>)>;

impl<T: Float> Kernel for Everything<'_, T> {
    type Elem = T;
    type Output = Results;

    fn run<S: Simd<T>>(self, simd: S) -> Results {
        let [a, b, c] = self.operands.each_ref().map(|x| simd.load(x));
        let [zero, one] = [T::zero(), T::one()].map(|x| simd.splat(x));
        let bits = |x| simd.store(x).as_ref().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let number = |x| simd.store(x).as_ref().iter().map(|&x| canonical(x)).collect();
        let truth = |mask| [bits(simd.select(mask, one, zero)), vec![simd.any(mask).into()]].concat();
        let (lt, le, eq) = (simd.lt(a, b), simd.le(b, c), simd.eq(a, c));
        vec![
            ("add", number(simd.add(a, b))),
            ("sub", number(simd.sub(a, b))),
            ("mul", number(simd.mul(a, b))),
            ("div", number(simd.div(a, b))),
            ("sqrt", number(simd.sqrt(a))),
            ("mul_add", number(simd.mul_add(a, b, c))),
            ("lt", truth(lt)),
            ("le", truth(le)),
            ("eq", truth(eq)),
            ("mask_and", truth(simd.mask_and(lt, le))),
            ("mask_or", truth(simd.mask_or(lt, eq))),
            ("mask_not", truth(simd.mask_not(lt))),
            ("select", bits(simd.select(lt, b, c))),
            ("and", bits(simd.and(a, b))),
            ("or", bits(simd.or(a, b))),
            ("xor", bits(simd.xor(a, b))),
            ("int_add", bits(simd.int_add(a, b))),
            ("int_sub", bits(simd.int_sub(a, b))),
            ("shl", bits(simd.shl(a, self.shift))),
            ("shr", bits(simd.shr(a, self.shift))),
        ]
    }
}

/// The bits, with one NaN for all.
fn canonical<T: Float>(x: T) -> u64 {
    if x.is_nan() { T::nan().to_bits() } else { x.to_bits() }
}

macro_rules! check {
    ($float:ident, $bits:expr, $shift:expr) => {{
        let operands = $bits.map(|block| block.map($float::from_bits));
        let everything =
            Everything::<$float> { operands: &operands, shift: u32::from($shift) % (8 * size_of::<$float>() as u32) };
        let baseline = Baseline.vectorize(everything);
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(simd) = Avx2::detect() {
                assert_eq!(simd.vectorize(everything), baseline, "avx2 and baseline, {operands:?}");
            }
            if let Some(simd) = Avx512::detect() {
                assert_eq!(simd.vectorize(everything), baseline, "avx512 and baseline, {operands:?}");
            }
        }
        let [a, b, c] = &operands;
        let fused: Vec<u64> = (0..a.len()).map(|i| canonical(a[i].mul_add(b[i], c[i]))).collect();
        let (_, got) = baseline.iter().find(|(name, _)| *name == "mul_add").unwrap();
        assert_eq!(*got, fused, "mul_add, {operands:?}");
    }};
}

fuzz_target!(|input: Input| {
    check!(f32, input.f32, input.shift);
    check!(f64, input.f64, input.shift);
});
