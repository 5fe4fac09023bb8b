//! The fused multiply-add in software, for targets without one: rounded once, every case.
//!
//! f32: the product is exact in f64; its sum with `c` is rounded to odd, so that the second rounding to f32 is the
//! only one that counts. f64: the same with error-free transformations where nothing can over- or underflow, in
//! integers elsewhere. Source: S. Boldo, G. Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms
//! using rounding to odd", IEEE Transactions on Computers 57(4), 2008.

/// `a * b + c` in each lane.
#[inline]
pub(super) fn block_fma_f32(a: &[f32; 16], b: &[f32; 16], c: &[f32; 16]) -> [f32; 16] {
    core::array::from_fn(|i| {
        #[expect(clippy::cast_possible_truncation, reason = "the one rounding")]
        let rounded = add_to_odd(f64::from(a[i]) * f64::from(b[i]), f64::from(c[i])) as f32;
        rounded
    })
}

/// `a * b + c` in each lane.
#[inline]
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
    let inexact = error < 0.0 || error > 0.0;
    let away_from_zero = (error > 0.0) == (sum > 0.0);
    let neighbour = if away_from_zero { bits.wrapping_add(1) } else { bits.wrapping_sub(1) };
    f64::from_bits(if inexact && bits & 1 == 0 { neighbour } else { bits })
}

#[inline]
fn fma_tame(a: f64, b: f64, c: f64) -> f64 {
    let (high, low) = two_mul(a, b);
    let (carry, rest) = two_sum(c, low);
    let (sum, error) = two_sum(high, carry);
    sum + add_to_odd(rest, error)
}

/// A finite nonzero number as a mantissa with bit 124 set, and an exponent: `mantissa * 2^exponent`.
struct Wide {
    negative: bool,
    mantissa: u128,
    exponent: i32,
}

const TOP: u32 = 124;

impl Wide {
    fn new(negative: bool, mantissa: u128, exponent: i32) -> Self {
        let shift = mantissa.leading_zeros() - (127 - TOP);
        Self { negative, mantissa: mantissa << shift, exponent: exponent - shift.cast_signed() }
    }

    fn from_f64(x: f64) -> Self {
        let (mantissa, exponent) = decode(x);
        Self::new(x.is_sign_negative(), u128::from(mantissa), exponent)
    }
}

/// A finite number as `mantissa * 2^exponent`.
fn decode(x: f64) -> (u64, i32) {
    let fraction = x.to_bits() & ((1 << 52) - 1);
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
    let finite = a.is_finite() && b.is_finite() && c.is_finite();
    if !finite || a == 0.0 || b == 0.0 {
        return a * b + c; // the product is exact
    }
    if c == 0.0 {
        return a * b;
    }
    let ((ma, ea), (mb, eb)) = (decode(a), decode(b));
    let negative = a.is_sign_negative() != b.is_sign_negative();
    let product = Wide::new(negative, u128::from(ma) * u128::from(mb), ea + eb);
    let addend = Wide::from_f64(c);
    let (large, small) = if (product.exponent, product.mantissa) >= (addend.exponent, addend.mantissa) {
        (product, addend)
    } else {
        (addend, product)
    };
    let aligned = shift_right_sticky(small.mantissa, large.exponent.abs_diff(small.exponent));
    let sum = if large.negative == small.negative { large.mantissa + aligned } else { large.mantissa - aligned };
    if sum == 0 { 0.0 } else { round(large.negative, sum, large.exponent) }
}

/// `mantissa * 2^exponent`, rounded to nearest even; the last bit of the mantissa is sticky.
fn round(negative: bool, mantissa: u128, exponent: i32) -> f64 {
    let width = 128 - mantissa.leading_zeros().cast_signed();
    let last = (exponent + width - 53).max(-1074); // exponent of the last bit that is kept
    let shift = last - exponent;
    let kept = if shift <= 0 {
        mantissa << shift.unsigned_abs()
    } else {
        let halves = shift_right_sticky(mantissa, shift.unsigned_abs() - 1);
        let sticky = halves & 1 != 0 && {
            let half = halves >> 1;
            let exactly_half = half << shift.unsigned_abs() | 1 << (shift - 1) == mantissa;
            !exactly_half || half & 1 != 0
        };
        (halves >> 1) + u128::from(sticky)
    };
    let kept = u64::try_from(kept).expect("53 bits and a carry");
    // A normal number's leading bit adds one to the exponent field; a carry adds another, up to infinity.
    let field = u64::try_from(last + 1074).expect("not below the last bit of a subnormal");
    let magnitude = if field >= 0x7fe { 0x7ff << 52 } else { (field << 52) + kept };
    f64::from_bits(magnitude.min(0x7ff << 52) | u64::from(negative) << 63)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of every kind, in an order without pattern.
    fn numbers() -> impl Iterator<Item = u64> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        core::iter::repeat_with(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        })
    }

    fn same(a: f64, b: f64) -> bool {
        a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
    }

    /// Random bits, with the exponent of the addend drawn near the product's so that they meet.
    fn cases() -> impl Iterator<Item = [f64; 3]> {
        let mut numbers = numbers();
        core::iter::from_fn(move || {
            let [a, b, c, how] = core::array::from_fn(|_| numbers.next().expect("endless"));
            let (a, b) = match how % 4 {
                0 => (a, b),
                1 => (a & !(0x7ff << 52) | 0x3fd << 52, b & !(0x7ff << 52) | 0x002 << 52),
                2 => (a & !(0x7ff << 52) | 0x3ff << 52, b & !(0x7ff << 52) | 0x3ff << 52),
                _ => (a & !0xffff_ffff, b & !0xffff_ffff),
            };
            let (a, b) = (f64::from_bits(a), f64::from_bits(b));
            let near = (a * b).to_bits().wrapping_add((c % 2048) << 44).wrapping_sub(1 << 54);
            let c = if how & 16 == 0 { c } else { near ^ (c & (1 << 63 | 0xffff_ffff)) };
            Some([a, b, f64::from_bits(c)])
        })
    }

    #[test]
    fn f64_equals_the_c_library() {
        for [a, b, c] in cases().take(2_000_000) {
            let (got, want) = (block_fma_f64(&[a; 8], &[b; 8], &[c; 8])[0], f64::mul_add(a, b, c));
            assert!(same(got, want), "fma({a:e}, {b:e}, {c:e}) = {got:e}, not {want:e}");
            let got = fma_any(a, b, c);
            assert!(same(got, want), "in integers: fma({a:e}, {b:e}, {c:e}) = {got:e}, not {want:e}");
        }
    }

    #[test]
    fn f32_equals_integers_rounded_once() {
        let mut numbers = numbers();
        for _ in 0..2_000_000 {
            let [x, y] = core::array::from_fn(|_| numbers.next().expect("endless"));
            let narrow = |bits: u64| f32::from_bits(u32::try_from(bits & 0xffff_ffff).expect("32 bits"));
            let (a, b, free) = (narrow(x), narrow(x >> 32), narrow(y));
            let near = f32::from_bits((a * b).to_bits() ^ (narrow(y >> 32).to_bits() & 0x80ff_ffff));
            for c in [free, near] {
                let got = block_fma_f32(&[a; 16], &[b; 16], &[c; 16])[0];
                let want = f32::mul_add(a, b, c);
                assert!(same(got.into(), want.into()), "fma({a:e}, {b:e}, {c:e}) = {got:e}, not {want:e}");
            }
        }
    }

    #[test]
    fn halfway_cases_round_to_even() {
        let tiny = f64::from_bits(1);
        assert_eq!(fma_any(tiny, 0.5, 0.0), 0.0);
        assert_eq!(fma_any(tiny, 1.5, 0.0), 2.0 * tiny);
        assert_eq!(fma_any(f64::MAX, 2.0, -f64::MAX), f64::MAX);
        assert_eq!(fma_any(f64::MAX, 1.0, f64::MAX), f64::INFINITY);
        assert_eq!(fma_any(1.0, 1.0, -1.0).to_bits(), 0);
        assert_eq!(block_fma_f32(&[f32::MAX; 16], &[2.0; 16], &[-f32::MAX; 16]), [f32::MAX; 16]);
    }
}
