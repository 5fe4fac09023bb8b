//! Every operation of every instruction set that this CPU has, against its definition in plain Rust, bit for bit.

use std::any::type_name;

#[cfg(target_arch = "x86_64")]
use nanproof::internal::{Avx2, Avx512};
use nanproof::internal::{Baseline, Kernel, Simd};
use nanproof::{Float, Isa};
use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};

/// Three blocks of operands.
type Case<T> = [Vec<T>; 3];

/// Checks every operation on each case.
#[derive(Clone, Copy)]
struct Check<'a, T>(&'a [Case<T>]);

impl<T: Float> Kernel for Check<'_, T> {
    type Elem = T;
    type Output = ();

    fn run<S: Simd<T>>(self, simd: S) {
        tails(simd);
        single_lanes(simd);
        transposes(simd);
        for (i, case) in self.0.iter().enumerate() {
            every_operation(simd, case, i);
        }
    }
}

/// One operation a line, with its definition.
fn every_operation<T: Float, S: Simd<T>>(simd: S, case: &Case<T>, i: usize) {
    let [a, b, c] = case.each_ref().map(|x| simd.load(block(x)));

    // Numbers: a NaN equals a NaN.
    let number = |name, got, want: fn(T, T, T) -> T| {
        compare::<T, S>(name, case, simd.store(got), want, |got, want| {
            same_bits(got, want) || got.is_nan() && want.is_nan()
        });
    };
    number("add", simd.add(a, b), |a, b, _| a + b);
    number("sub", simd.sub(a, b), |a, b, _| a - b);
    number("mul", simd.mul(a, b), |a, b, _| a * b);
    number("div", simd.div(a, b), |a, b, _| a / b);
    number("sqrt", simd.sqrt(a), |a, _, _| a.sqrt());
    number("mul_add", simd.mul_add(a, b, c), |a, b, c| a.mul_add(b, c));

    // Truths, seen through `select` and `any`.
    let [zero, one] = [T::zero(), T::one()].map(|x| simd.splat(x));
    let truth = |name, mask, want: fn(T, T, T) -> bool| {
        let number = |a, b, c| if want(a, b, c) { T::one() } else { T::zero() };
        compare::<T, S>(name, case, simd.store(simd.select(mask, one, zero)), number, same_bits);
        let any = (0..T::LANES).any(|lane| want(case[0][lane], case[1][lane], case[2][lane]));
        assert_eq!(simd.any(mask), any, "{} any({name}) of {case:?}", type_name::<S>());
    };
    let (lt, le, eq) = (simd.lt(a, b), simd.le(b, c), simd.eq(a, b));
    truth("lt", lt, |a, b, _| a < b);
    truth("le", le, |_, b, c| b <= c);
    truth("eq", eq, |a, b, _| a == b);
    truth("mask_and", simd.mask_and(lt, le), |a, b, c| a < b && b <= c);
    truth("mask_or", simd.mask_or(eq, le), |a, b, c| a == b || b <= c);
    truth("mask_not", simd.mask_not(lt), |a, b, _| !matches!(a.partial_cmp(&b), Some(core::cmp::Ordering::Less)));

    // Bits.
    let exact = |name, got, want: &dyn Fn(u64, u64, u64) -> u64| {
        let want = |a: T, b: T, c: T| T::from_bits(want(a.to_bits(), b.to_bits(), c.to_bits()));
        compare::<T, S>(name, case, simd.store(got), want, same_bits);
    };
    let n = (i % (512 / T::LANES)) as u32; // every shift that the width of T allows
    exact("load, store", a, &|a, _, _| a);
    exact("and", simd.and(a, b), &|a, b, _| a & b);
    exact("or", simd.or(a, b), &|a, b, _| a | b);
    exact("xor", simd.xor(a, b), &|a, b, _| a ^ b);
    exact("int_add", simd.int_add(a, b), &|a, b, _| a.wrapping_add(b));
    exact("int_sub", simd.int_sub(a, b), &|a, b, _| a.wrapping_sub(b));
    exact("shl", simd.shl(a, n), &|a, _, _| a << n);
    exact("shr", simd.shr(a, n), &|a, _, _| a >> n);
    let width = 8 * size_of::<T>() as u32;
    let bit = |n: u64| if n < u64::from(width) { 1 << n } else { 0 };
    exact("bit", simd.bit(simd.shr(a, width - 7)), &|a, _, _| bit(a >> (width - 7)));
    exact("bit", simd.bit(a), &|a, _, _| bit(a));
    let table = case[1].first_chunk().expect("a table");
    exact("lookup", simd.lookup(table, a), &|a, _, _| table[(a & 7) as usize].to_bits());
    for (half, got) in simd.widen(a).into_iter().chain(simd.load_wide(block(&case[0]))).enumerate() {
        for (lane, got) in simd.wide().store(got).into_iter().enumerate() {
            let want = case[0].get(8 * (half % 2) + lane).map_or(0.0, |x| x.to_f64().expect("every number fits"));
            assert!(same_bits(got, want) || got.is_nan() && want.is_nan(), "{} widen {case:?}", type_name::<S>());
        }
    }
    if T::LANES == 16 {
        // Products of numbers of f32 are exact in f64.
        let (wide, half) = (simd.wide(), |x| simd.widen(x)[0]);
        let got = wide.store(wide.mul_add_exact(half(a), half(b), half(c)));
        for (lane, got) in got.into_iter().enumerate() {
            let [a, b, c] = case.each_ref().map(|x| x[lane].to_f64().expect("every number fits"));
            let want = a * b + c;
            let right = same_bits(got, want) || got.is_nan() && want.is_nan();
            assert!(right, "{} mul_add_exact: {a:e} * {b:e} + {c:e} gives {got:e}, not {want:e}", type_name::<S>());
        }
    }
    compare::<T, S>("splat", case, simd.store(simd.splat(case[0][0])), |_, _, _| case[0][0], same_bits);
    compare::<T, S>("larger", case, simd.store(simd.larger(a, b)), |a, b, _| if b < a { a } else { b }, same_bits);
    compare::<T, S>("smaller", case, simd.store(simd.smaller(a, b)), |a, b, _| if a < b { a } else { b }, same_bits);
    compare::<T, S>("select", case, simd.store(simd.select(lt, b, c)), |a, b, c| if a < b { b } else { c }, same_bits);
}

/// Squares at several strides, the last one ending where the slice does.
fn transposes<T: Float, S: Simd<T>>(simd: S) {
    for stride in [T::LANES, T::LANES + 1, 3 * T::LANES + 5] {
        let len = (T::LANES - 1) * stride + T::LANES;
        let x = (0..len).map(|i| T::from_bits(i as u64)).collect::<Vec<_>>();
        for count in 0..=T::LANES {
            let mut lines = 0;
            simd.transpose(&x, stride, count, |j, line| {
                assert_eq!(j, lines, "{} transpose: lines in their order", type_name::<S>());
                lines += 1;
                for (i, &got) in simd.store(line).as_ref().iter().enumerate() {
                    assert!(same_bits(got, x[i * stride + j]), "{} transpose, row {i}, column {j}", type_name::<S>());
                }
            });
            assert_eq!(lines, count, "{} transpose: every line that is asked for", type_name::<S>());
        }
    }
}

/// A truth in one lane only, and in all but one.
fn single_lanes<T: Float, S: Simd<T>>(simd: S) {
    let zero = simd.splat(T::zero());
    let name = type_name::<S>();
    assert!(!simd.any(simd.lt(zero, zero)), "{name} any of none");
    for lane in 0..T::LANES {
        let mut one = T::fill(T::zero());
        one.as_mut()[lane] = T::one();
        let mask = simd.lt(zero, simd.load(&one));
        assert!(simd.any(mask), "{name} any of lane {lane}");
        assert!(simd.any(simd.mask_not(mask)), "{name} any of all but lane {lane}");
        let all = simd.mask_or(mask, simd.mask_not(mask));
        assert!(!simd.any(simd.mask_not(all)), "{name} any of not all");
    }
}

/// Slices of every length up to a block, and as many lanes.
fn tails<T: Float, S: Simd<T>>(simd: S) {
    let name = type_name::<S>();
    let x = (1..=T::LANES).map(|i| T::from_bits(i as u64)).collect::<Vec<_>>();
    for len in 0..=T::LANES {
        let loaded = simd.store(simd.load_tail(&x[..len]));
        let mut place = vec![T::one(); len];
        simd.store_tail(simd.load(block(&x)), &mut place);
        let lanes = simd.store(simd.select(simd.first(len), simd.splat(T::one()), simd.splat(T::zero())));
        for (i, &x) in x.iter().enumerate() {
            let (element, one) = if i < len { (x, T::one()) } else { (T::zero(), T::zero()) };
            assert!(same_bits(loaded.as_ref()[i], element), "{name} load_tail of {len}, lane {i}");
            assert!(same_bits(lanes.as_ref()[i], one), "{name} first {len}, lane {i}");
        }
        assert!(place.iter().zip(&x).all(|(&got, &x)| same_bits(got, x)), "{name} store_tail of {len}");
    }
}

fn compare<T: Float, S: Simd<T>>(
    name: &str,
    case: &Case<T>,
    got: T::Block,
    want: impl Fn(T, T, T) -> T,
    same: impl Fn(T, T) -> bool,
) {
    for (lane, &got) in got.as_ref().iter().enumerate() {
        let [a, b, c] = case.each_ref().map(|x| x[lane]);
        let want = want(a, b, c);
        assert!(
            same(got, want),
            "{} {name}, lane {lane} of ({a:e}, {b:e}, {c:e}): {got:e}, bits {:#x}; not {want:e}, bits {:#x}",
            type_name::<S>(),
            got.to_bits(),
            want.to_bits(),
        );
    }
}

fn same_bits<T: Float>(a: T, b: T) -> bool {
    a.to_bits() == b.to_bits()
}

fn block<T: Float>(x: &[T]) -> &T::Block {
    &T::blocks(x).0[0]
}

/// Zeros, subnormals and the border to them, powers of two and their neighbours, the largest, infinities, NaNs.
fn specials<T: Float>() -> Vec<T> {
    let next = |x: T, by: i64| T::from_bits(x.to_bits().wrapping_add_signed(by));
    let (tiny, half_width) = (T::min_positive_value(), T::from(T::BIAS / 2).unwrap().exp2());
    let two = T::one() + T::one();
    let magnitudes = [
        T::zero(),
        next(T::zero(), 1),
        next(T::zero(), 3),
        next(tiny, -1),
        tiny,
        next(tiny, 1),
        two * tiny,
        two * tiny / T::epsilon(),
        half_width.recip(),
        T::epsilon(),
        T::one() / two,
        next(T::one(), -1),
        T::one(),
        next(T::one(), 1),
        T::one() + T::one() / two,
        next(two, -1),
        two,
        T::from(3).unwrap(),
        T::from(0.1).unwrap(),
        half_width,
        two * half_width,
        next(T::max_value(), -1),
        T::max_value(),
        T::infinity(),
        next(T::infinity(), 1), // a signalling NaN
        T::nan(),
        T::ABS_MASK, // the NaN of most bits
    ];
    magnitudes.into_iter().flat_map(|x| [x, -x]).collect()
}

/// Every triple of the values, in an order in which the lanes of a block differ in all three.
fn triples<T: Float>(values: &[T]) -> Vec<Case<T>> {
    const STEP: usize = 1_000_003; // a prime
    let n = values.len();
    let triple = |i: usize| {
        let i = i.wrapping_mul(STEP) % n.pow(3);
        [values[i / n / n], values[i / n % n], values[i % n]]
    };
    let triples: Vec<[T; 3]> = (0..n.pow(3).next_multiple_of(T::LANES)).map(triple).collect();
    triples.chunks(T::LANES).map(|lanes| [0, 1, 2].map(|operand| lanes.iter().map(|x| x[operand]).collect())).collect()
}

/// Random bits, numbers of like size, products that underflow, and sums that nearly cancel.
fn random_cases<T: Float>() -> Vec<Case<T>> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let fraction = (1_u64 << T::FRACTION_BITS) - 1;
    let sign = (-T::zero()).to_bits();
    let mut lanes = |like: u64, mask: u64| -> Vec<T> {
        (0..T::LANES).map(|_| T::from_bits(like ^ (rng.next_u64() & mask))).collect()
    };
    let one = T::one().to_bits();
    let few_exponents = fraction << 3 | 7 | sign; // the last three bits of the exponent field too
    (0..20_000)
        .map(|i| match i % 5 {
            0 => [0, 1, 2].map(|_| lanes(0, u64::MAX)),
            1 => [0, 1, 2].map(|_| lanes(one, few_exponents)),
            2 => [lanes(one, fraction | sign), lanes(one, few_exponents), lanes(one >> 1, few_exponents)],
            3 => [lanes(one >> 1, few_exponents), lanes(one >> 1, few_exponents), lanes(0, few_exponents)],
            _ => {
                let [a, b] = [0, 1].map(|_| lanes(one, few_exponents));
                let noise = lanes(0, 0xffff);
                let cancels = |i: usize| T::from_bits((-(a[i] * b[i])).to_bits() ^ noise[i].to_bits());
                let c = (0..T::LANES).map(cancels).collect();
                [a, b, c]
            }
        })
        .collect()
}

/// Runs the check on every instruction set that can be had, and tells which these were.
macro_rules! check {
    ($float:ident) => {{
        let specials = specials::<$float>();
        // The shortcuts of a backend take a whole block, so those without extremes are also tried among themselves.
        let mild: Vec<$float> =
            specials.iter().copied().filter(|x| *x == 0.0 || (1e-9..1e9).contains(&x.abs())).collect();
        let cases = [triples(&specials), triples(&mild), random_cases()].concat();
        let check = Check(&cases);
        let ran = [
            Some(Baseline).map(|simd| (simd.vectorize(check), Isa::Baseline)),
            #[cfg(target_arch = "x86_64")]
            Avx2::detect().map(|simd| (simd.vectorize(check), Isa::Avx2)),
            #[cfg(target_arch = "x86_64")]
            Avx512::detect().map(|simd| (simd.vectorize(check), Isa::Avx512)),
        ];
        let ran: Vec<Isa> = ran.into_iter().flatten().map(|(_, isa)| isa).collect();
        assert_eq!(ran, Isa::available(), "every instruction set of this CPU is checked");
    }};
}

#[test]
fn f32_operations() {
    check!(f32);
}

#[test]
fn f64_operations() {
    check!(f64);
}

#[test]
#[cfg(all(target_arch = "x86_64", feature = "std"))]
fn available_is_what_the_cpu_reports() {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    let reported = [(Isa::Baseline, true), (Isa::Avx2, avx2), (Isa::Avx512, avx512)];
    let expected: Vec<Isa> = reported.into_iter().filter(|(_, has)| *has).map(|(isa, _)| isa).collect();
    assert_eq!(Isa::available(), expected);
}
