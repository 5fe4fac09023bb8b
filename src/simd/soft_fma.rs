//! The fused multiply-add in software, for targets without one: rounded once, every case.
//!
//! f32: the product is exact in f64; its sum with `c` is rounded to odd, so that the second rounding to f32 is the
//! only one that counts. f64: the same with error-free transformations where nothing can over- or underflow, in
//! integers elsewhere. Source: S. Boldo, G. Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms
//! using rounding to odd", IEEE Transactions on Computers 57(4), 2008.

/// `a * b + c` in each lane.
#[inline(never)] // hundreds of instructions, at every multiply-add of every kernel
pub(super) fn block_fma_f32(a: &[f32; 16], b: &[f32; 16], c: &[f32; 16]) -> [f32; 16] {
    core::array::from_fn(|i| {
        #[expect(clippy::cast_possible_truncation, reason = "the one rounding")]
        let rounded = add_to_odd(f64::from(a[i]) * f64::from(b[i]), f64::from(c[i])) as f32;
        rounded
    })
}

/// `a * b + c` in each lane.
#[inline(never)] // hundreds of instructions, at every multiply-add of every kernel
pub(super) fn block_fma_f64(a: &[f64; 8], b: &[f64; 8], c: &[f64; 8]) -> [f64; 8] {
    let factors_tame = a.iter().chain(b).all(|&x| is_tame(x, 400));
    if factors_tame && c.iter().all(|&x| is_tame(x, 900)) {
        core::array::from_fn(|i| fma_tame(a[i], b[i], c[i]))
    } else {
        core::array::from_fn(|i| fma_any(a[i], b[i], c[i]))
    }
}

/// Whether `x` is zero or within `2^-limit ..= 2^limit`.
#[inline]
fn is_tame(x: f64, limit: u64) -> bool {
    let power = |e: u64| f64::from_bits((1023 + e) << 52);
    let (low, high) = (1.0 / power(limit), power(limit));
    x == 0.0 || (low <= x.abs() && x.abs() <= high)
}

/// The sum of `a` and `b` and its rounding error, exactly (Knuth).
#[inline]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let part = sum - a;
    (sum, (a - (sum - part)) + (b - part))
}

/// The product of `a` and `b` and its rounding error, exactly (Dekker), for tame operands.
#[inline]
fn two_mul(a: f64, b: f64) -> (f64, f64) {
    let split = |x: f64| {
        let big = x * 134_217_729.0; // 2^27 + 1
        let high = big - (big - x);
        (high, x - high)
    };
    let (product, (ah, al), (bh, bl)) = (a * b, split(a), split(b));
    (product, al * bl - (((product - ah * bh) - al * bh) - ah * bl))
}

/// `a + b` rounded to odd: if inexact, that neighbour of the sum whose last bit is set.
#[inline]
fn add_to_odd(a: f64, b: f64) -> f64 {
    let (sum, error) = two_sum(a, b);
    let bits = sum.to_bits();
    let inexact = error.abs() > 0.0; // false for a NaN, which an infinite sum leaves
    let away_from_zero = (error > 0.0) == (sum > 0.0);
    let neighbour = if away_from_zero { bits.wrapping_add(1) } else { bits.wrapping_sub(1) };
    f64::from_bits(if inexact && bits & 1 == 0 { neighbour } else { bits })
}

#[inline]
fn fma_tame(a: f64, b: f64, c: f64) -> f64 {
    let (high, low) = two_mul(a, b);
    let (carry, rest) = two_sum(c, low);
    let (sum, error) = two_sum(high, carry);
    let result = sum + add_to_odd(rest, error);
    // A result of zero means that the product is exact; only the plain sum has the right sign then.
    if result == 0.0 { a * b + c } else { result }
}

/// A finite nonzero number, `mantissa * 2^exponent`, with bit 126 of the mantissa set: a sum of two still fits.
struct Wide {
    negative: bool,
    mantissa: u128,
    exponent: i32,
}

impl Wide {
    fn new(negative: bool, mantissa: u128, exponent: i32) -> Self {
        let shift = mantissa.leading_zeros() - 1;
        Self { negative, mantissa: mantissa << shift, exponent: exponent - shift.cast_signed() }
    }
}

/// A finite number as `mantissa * 2^exponent`.
fn decode(x: f64) -> (u128, i32) {
    let fraction = u128::from(x.to_bits() & ((1 << 52) - 1));
    let field = i32::try_from(x.to_bits() >> 52 & 0x7ff).expect("eleven bits");
    if field == 0 { (fraction, -1074) } else { (fraction | 1 << 52, field - 1075) }
}

/// `x / 2^shift` with every lost bit gathered in the last one.
fn shift_right_sticky(x: u128, shift: u32) -> u128 {
    match x.checked_shr(shift) {
        Some(kept) => kept | u128::from(kept << shift != x),
        None => u128::from(x != 0),
    }
}

#[cold]
fn fma_any(a: f64, b: f64, c: f64) -> f64 {
    if a.is_finite() && b.is_finite() && !c.is_finite() {
        return c; // the product is finite, even where `a * b` would overflow
    }
    if !a.is_finite() || !b.is_finite() || a == 0.0 || b == 0.0 {
        return a * b + c; // the product is exact
    }
    if c == 0.0 {
        return a * b; // not zero before it is rounded: it keeps its sign
    }
    let ((ma, ea), (mb, eb), (mc, ec)) = (decode(a), decode(b), decode(c));
    let product = Wide::new(a.is_sign_negative() != b.is_sign_negative(), ma * mb, ea + eb);
    let addend = Wide::new(c.is_sign_negative(), mc, ec);
    let (large, small) = if (product.exponent, product.mantissa) >= (addend.exponent, addend.mantissa) {
        (product, addend)
    } else {
        (addend, product)
    };
    // Bits are lost only where the exponents are 21 or more apart: the sum then keeps 125 bits above the sticky one.
    let aligned = shift_right_sticky(small.mantissa, large.exponent.abs_diff(small.exponent));
    let sum = if large.negative == small.negative { large.mantissa + aligned } else { large.mantissa - aligned };
    let magnitude = if sum == 0 { return 0.0 } else { round(sum, large.exponent) };
    if large.negative { -magnitude } else { magnitude }
}

/// `mantissa * 2^exponent`, not zero, rounded to nearest even; the last of the 128 bits may be sticky.
fn round(mantissa: u128, exponent: i32) -> f64 {
    let width = 128 - mantissa.leading_zeros().cast_signed();
    // The exponent of the last bit that is kept, and the mantissa in quarters of it, the last one sticky.
    let last = (exponent + width - 53).max(-1074);
    let shift = last - 2 - exponent;
    let quarters = match u32::try_from(shift) {
        Ok(shift) => shift_right_sticky(mantissa, shift),
        Err(_) => mantissa << shift.unsigned_abs(),
    };
    let quarters = u64::try_from(quarters).expect("53 bits and two");
    let (half, odd_or_above_half) = (quarters & 2 != 0, quarters & 0b101 != 0);
    let kept = (quarters >> 2) + u64::from(half && odd_or_above_half);
    // The leading bit of a normal number adds one to the exponent field, a carry another, up to infinity.
    let field = u64::try_from(last + 1074).expect("not below the last bit of a subnormal");
    if field >= 0x7fe { f64::INFINITY } else { f64::from_bits((field << 52) + kept) }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    /// Numbers without pattern.
    fn numbers() -> impl FnMut() -> u64 {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d)
        }
    }

    fn check_f64(a: f64, b: f64, c: f64) {
        let want = f64::mul_add(a, b, c);
        let same = |got: f64| got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
        let got = block_fma_f64(&[a; 8], &[b; 8], &[c; 8]);
        assert!(got.into_iter().all(same), "fma({a:e}, {b:e}, {c:e}) = {got:?}, not {want:e}");
        let got = fma_any(a, b, c);
        assert!(same(got), "in integers: fma({a:e}, {b:e}, {c:e}) = {got:e}, not {want:e}");
    }

    fn check_f32(a: f32, b: f32, c: f32) {
        let want = f32::mul_add(a, b, c);
        let got = block_fma_f32(&[a; 16], &[b; 16], &[c; 16]);
        let same = got.into_iter().all(|got| got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()));
        assert!(same, "fma({a:e}, {b:e}, {c:e}) = {got:?}, not {want:e}");
    }

    /// The bits of two finite factors whose product is about `2^exponent`, and of an addend near it, for a format with
    /// that bias and fraction. Fractions often end in a long run of zeros or ones: those make the ties.
    fn near(mut number: impl FnMut() -> u64, exponent: i64, bias: i64, fraction: u32) -> [u64; 3] {
        let mut within = |limit: i64| number().cast_signed() % (limit + 1);
        let (first, apart) = (exponent / 2 + within(bias / 2), within(115));
        [first, exponent - first, exponent + apart].map(|exponent| {
            let (bits, run) = (number(), (1 << (number() % u64::from(fraction + 1))) - 1);
            let tail = [bits, bits & run, bits | run, bits & !run][usize::from(number() as u8 % 4)];
            let field = (exponent + bias).clamp(0, 2 * bias).cast_unsigned();
            let sign = bits >> 63 << (fraction + if fraction == 52 { 11 } else { 8 });
            sign | field << fraction | tail & ((1 << fraction) - 1)
        })
    }

    #[test]
    fn f64_equals_the_c_library() {
        let mut number = numbers();
        for i in 0..500_000 {
            let random = [number(), number(), number()];
            // anywhere, subnormal products and results, the border of overflow
            let exponents =
                [i % 900 - 450, -1075 + i % 60, -1022, 1020 + i % 4].map(|e| near(&mut number, e, 1023, 52));
            for case in exponents.into_iter().chain([random]) {
                let [a, b, c] = case.map(f64::from_bits);
                check_f64(a, b, c);
            }
        }
    }

    #[test]
    fn f32_equals_the_c_library() {
        let mut number = numbers();
        for i in 0..500_000 {
            let random = [number() >> 32, number() >> 32, number() >> 32];
            let exponents = [i % 250 - 125, -150 + i % 30, -126, 124 + i % 4].map(|e| near(&mut number, e, 127, 23));
            for case in exponents.into_iter().chain([random]) {
                let [a, b, c] = case.map(|bits| f32::from_bits(u32::try_from(bits).expect("32 bits")));
                check_f32(a, b, c);
            }
        }
    }

    #[test]
    fn special_operands() {
        let (min, least) = (f64::MIN_POSITIVE, f64::from_bits(1));
        let magnitudes =
            [0.0, least, 2.0 * least, min.next_down(), min, min.next_up(), 2.0 * min, 1e-200, 2.0_f64.powi(-537)]
                .into_iter()
                .chain([
                    0.5,
                    1.0_f64.next_down(),
                    1.0,
                    1.0_f64.next_up(),
                    1.5,
                    2.0,
                    3.0,
                    2.0_f64.powi(511),
                    2.0_f64.powi(512),
                ])
                .chain([f64::MAX / 2.0, f64::MAX.next_down(), f64::MAX, f64::INFINITY, f64::NAN]);
        let values: Vec<f64> = magnitudes.flat_map(|x| [x, -x]).collect();
        for &a in &values {
            for &b in &values {
                for &c in &values {
                    check_f64(a, b, c);
                    check_f32(a as f32, b as f32, c as f32);
                }
            }
        }
    }

    #[test]
    fn rounds_once() {
        let least = f64::from_bits(1);
        assert_eq!(fma_any(least, 0.5, 0.0), 0.0); // a tie to even
        assert_eq!(fma_any(least, 1.5, 0.0), 2.0 * least);
        assert_eq!(fma_any(least, 0.5, f64::MIN_POSITIVE), f64::MIN_POSITIVE);
        assert_eq!(fma_any(-least, 0.75, f64::MIN_POSITIVE), f64::MIN_POSITIVE.next_down());
        assert_eq!(fma_any(1.0 + f64::EPSILON, 1.0 - f64::EPSILON, -1.0), -f64::EPSILON * f64::EPSILON);
        assert_eq!(fma_any(f64::MAX, 2.0, -f64::MAX), f64::MAX);
        assert_eq!(fma_any(f64::MAX, 1.0, f64::MAX), f64::INFINITY);
        assert_eq!(fma_any(f64::MAX, f64::MAX, f64::NEG_INFINITY), f64::NEG_INFINITY);
        assert_eq!(fma_any(1.0, 1.0, -1.0).to_bits(), 0);
        assert_eq!(fma_tame(-0.0, 1.0, -0.0).to_bits(), 1 << 63);
        assert_eq!(block_fma_f32(&[f32::MAX; 16], &[2.0; 16], &[-f32::MAX; 16]), [f32::MAX; 16]);
    }
}
