//! Laws that hold for all operands: exact ones bit for bit, the others within the documented errors.

mod common;

use common::{Case, KINDS, Kind, assert_same, data, draw, every_op, mat, mat_mut, num, on_every_isa, wide};
use nanproof::reference::{self, ulp_error};
use nanproof::{
    Float, MatRef, NormPartial, clip_by_global_norm, clip_by_norm, clip_by_value, dot, l2_norm, log_softmax, logsumexp,
    matmul, matmul_backward, relu, safe_div, safe_div_backward, softmax, sum, tanh,
};
use proptest::prelude::*;

/// A slice of up to 200 numbers of one kind, by its seed.
fn vector() -> impl Strategy<Value = (u64, Kind, usize)> {
    let kind = prop_oneof![
        Just(Kind::Within(1.0)),
        Just(Kind::Within(30.0)),
        Just(Kind::Whole),
        Just(Kind::AnyFinite),
        Just(Kind::Huge),
        Just(Kind::Tiny)
    ];
    (any::<u64>(), kind, 0..200_usize)
}

fn softmax_of<T: Float>(x: &[T]) -> Vec<T> {
    let mut y = vec![T::nan(); x.len()];
    softmax(mat(x, 1, x.len()), mat_mut(&mut y, 1, x.len())).expect("finite logits");
    y
}

fn product<T: Float>(a: MatRef<'_, T>, b: MatRef<'_, T>) -> Vec<T> {
    let mut c = vec![T::nan(); a.rows() * b.cols()];
    let _ = matmul(a, b, mat_mut(&mut c, a.rows(), b.cols()));
    c
}

fn power<T: Float>(n: i32) -> T {
    num(2.0_f64.powi(n))
}

fn softmax_laws<T: Float>((seed, kind, len): (u64, Kind, usize)) {
    let x = data::<T>(seed, kind, len);
    let y = softmax_of(&x);
    if len > 0 {
        // Each of the probabilities is within 2 ULP.
        let total = reference::sum(&y).to_f64();
        assert!((total - 1.0).abs() <= 2.0 * wide(T::epsilon()), "{total}");
        let mut lse = [T::nan()];
        logsumexp(mat(&x, 1, len), &mut lse).expect("finite");
        assert!(x.iter().all(|&x| x <= lse[0]), "log-sum-exp is at least the maximum");
        let mut log_y = vec![T::nan(); len];
        if log_softmax(mat(&x, 1, len), mat_mut(&mut log_y, 1, len)).is_ok() {
            assert!(log_y.iter().all(|&y| y <= T::zero()));
        }
    }
    // Whole numbers are shifted exactly, and so the result has the same bits.
    if matches!(kind, Kind::Whole) {
        let shifted = x.iter().map(|&x| x + num(1024.0)).collect::<Vec<_>>();
        assert_same("shifted", &softmax_of(&shifted), &y);
    }
    // Larger logits have larger probabilities.
    for i in 1..len {
        if x[i] > x[i - 1] {
            assert!(y[i] >= y[i - 1]);
        }
    }
}

fn scaling_laws<T: Float>((seed, kind, len): (u64, Kind, usize), n: i32) {
    // Numbers from which a power of two takes nothing away.
    let kind = if matches!(kind, Kind::AnyFinite | Kind::Huge | Kind::Tiny) { Kind::Within(8.0) } else { kind };
    let x = data::<T>(seed, kind, len);
    let y = data::<T>(!seed, Kind::Whole, len);
    let scaled = x.iter().map(|&x| x * power(n)).collect::<Vec<_>>();
    let norm = l2_norm(&x).expect("finite");
    assert_same("norm", &[l2_norm(&scaled).expect("finite")], &[norm * power(n)]);
    assert_same("sum", &[sum(&scaled).expect("finite")], &[sum(&x).expect("finite") * power(n)]);
    assert_same("dot", &[dot(&scaled, &y).expect("finite")], &[dot(&x, &y).expect("finite") * power(n)]);
    let (mut q, mut q_scaled) = (vec![T::nan(); len], vec![T::nan(); len]);
    safe_div(&y, &x, &mut q).expect("finite");
    safe_div(&y, &scaled, &mut q_scaled).expect("finite");
    q.iter_mut().for_each(|q| *q = *q * power(-n));
    assert_same("quotient", &q_scaled, &q);
    let (mut clipped, mut clipped_scaled) = (x.clone(), scaled);
    clip_by_norm(&mut clipped, num(3.0)).expect("finite");
    clip_by_norm(&mut clipped_scaled, num::<T>(3.0) * power(n)).expect("finite");
    clipped.iter_mut().for_each(|x| *x = *x * power(n));
    assert_same("clipped", &clipped_scaled, &clipped);
}

fn clipping_laws<T: Float>((seed, kind, len): (u64, Kind, usize), limit: T) {
    let x = data::<T>(seed, kind, len);
    let mut once = x.clone();
    let clip = clip_by_norm(&mut once, limit).expect("finite");
    assert_eq!(clip.clipped, reference::l2_norm(&x) > clip.norm.min(limit).into() && clip.norm > limit);
    let bound = wide(limit) * (1.0 + 3.0 * wide(T::epsilon())) + len as f64 * wide(T::from_bits(1));
    if clip.clipped {
        assert!(reference::l2_norm(&once).to_f64() <= bound);
    } else {
        assert_same("not longer", &once, &x);
    }
    assert!(x.iter().zip(&once).all(|(x, once)| once.abs() <= x.abs() && (*x * *once) >= T::zero()));
    // The direction is kept, and a second clipping changes nothing beyond rounding.
    if !limit.is_zero() {
        let mut twice = once.clone();
        clip_by_norm(&mut twice, limit).expect("finite");
        let close = |a: T, b: T| (a - b).abs() <= num::<T>(3.0) * T::epsilon() * b.abs() + T::from_bits(2);
        assert!(once.iter().zip(&twice).all(|(&once, &twice)| close(twice, once)));
    }

    let mut clamped = x.clone();
    let outside = clip_by_value(&mut clamped, limit).expect("finite");
    assert_eq!(outside, x.iter().filter(|x| x.abs() > limit).count());
    let mut twice = clamped.clone();
    assert_eq!(clip_by_value(&mut twice, limit), Ok(0));
    assert_same("clipped twice", &twice, &clamped);
}

/// Partial norms of any tensors and shards, merged in any order and grouping.
fn merging_laws<T: Float>(seed: u64, lens: &[usize], kind: Kind) {
    let mut rng = common::Rng(seed);
    let mut tensors = lens.iter().map(|&len| data::<T>(rng.bits(), kind, len)).collect::<Vec<_>>();
    let shards = tensors.iter().flat_map(|x| x.chunks(NormPartial::<T>::SHARD));
    let mut parts = shards.map(|x| NormPartial::of(x).expect("a number")).collect::<Vec<_>>();
    let in_order = parts.iter().fold(NormPartial::default(), |sum, &part| sum.merge(part));
    while parts.len() > 1 {
        let a = parts.swap_remove(rng.below(parts.len()));
        let b = parts.swap_remove(rng.below(parts.len()));
        parts.push(if rng.below(2) == 0 { a.merge(b) } else { b.merge(a) });
    }
    assert_eq!(parts.pop().unwrap_or_default(), in_order);
    assert_eq!(NormPartial::from_bytes(&in_order.to_bytes()), Ok(in_order));
    for x in &tensors {
        let partial = x.chunks(NormPartial::<T>::SHARD).map(|x| NormPartial::of(x).expect("a number"));
        let norm = partial.fold(NormPartial::default(), NormPartial::merge).norm().unwrap_or(T::infinity());
        assert_same("one tensor", &[norm], &[l2_norm(x).unwrap_or(T::infinity())]);
    }
    // Ranks that clip their own tensors by the merged norm do what one would do with all.
    let mut ranks = tensors.clone();
    let mut views = tensors.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>();
    let clip = clip_by_global_norm(&mut views, num(0.5)).expect("finite");
    for x in &mut ranks {
        assert_eq!(in_order.clip(&mut [x], num(0.5)), Ok(clip));
    }
    assert_same("clipped", &ranks.concat(), &tensors.concat());
}

fn product_laws<T: Float>(seed: u64, (m, k, n): (usize, usize, usize), kind: Kind) {
    let (a, b) = (data::<T>(seed, kind, m * k), data::<T>(!seed, kind, k * n));
    let (a, b) = (mat(&a, m, k), mat(&b, k, n));
    let c = product(a, b);
    let transposed = product(b.t(), a.t());
    for i in 0..m {
        for j in 0..n {
            assert_same("transposed", &[transposed[j * m + i]], &[c[i * n + j]]);
        }
    }
    // A product with one row, as a matrix-vector product.
    let i = seed as usize % m;
    assert_same("one row", &product(a.submatrix(i..i + 1, 0..k).expect("inside"), b), &c[i * n..(i + 1) * n]);
    // With the unit matrix nothing changes.
    let mut unit = vec![T::zero(); n * n];
    unit.iter_mut().step_by(n + 1).for_each(|x| *x = T::one());
    let normal = c.iter().map(|&c| c + T::zero()).collect::<Vec<_>>();
    if c.iter().all(|c| c.is_finite()) {
        assert_same("times one", &product(mat(&c, m, n), mat(&unit, n, n)), &normal);
    }
}

/// `<dC, dA B> = <dA, dC B^T>` and so on: the backward functions are the adjoints of the products.
fn adjoint(seed: u64, (m, k, n): (usize, usize, usize)) {
    let draw = |seed, len| data::<f64>(seed, Kind::Within(1.0), len);
    let (a, b, dc) = (draw(seed, m * k), draw(seed + 1, k * n), draw(seed + 2, m * n));
    let (u, v) = (draw(seed + 3, m * k), draw(seed + 4, k * n));
    let (mut da, mut db) = (vec![0.0; m * k], vec![0.0; k * n]);
    matmul_backward(mat(&a, m, k), mat(&b, k, n), mat(&dc, m, n), mat_mut(&mut da, m, k), mat_mut(&mut db, k, n))
        .expect("finite");
    let pairs = [
        (dot(&dc, &product(mat(&u, m, k), mat(&b, k, n))), dot(&da, &u)),
        (dot(&dc, &product(mat(&a, m, k), mat(&v, k, n))), dot(&db, &v)),
    ];
    for (forward, backward) in pairs.map(|(a, b)| (a.expect("finite"), b.expect("finite"))) {
        approx::assert_relative_eq!(forward, backward, epsilon = 1e-11, max_relative = 1e-11);
    }
}

fn odd_laws<T: Float>((seed, kind, len): (u64, Kind, usize)) {
    let x = data::<T>(seed, kind, len);
    let negative = x.iter().map(|&x| -x).collect::<Vec<_>>();
    let (mut y, mut z) = (vec![T::nan(); len], vec![T::nan(); len]);
    tanh(&x, &mut y).expect("finite");
    tanh(&negative, &mut z).expect("finite");
    z.iter_mut().for_each(|z| *z = -*z);
    assert_same("tanh is odd", &z, &y);
    relu(&x, &mut y).expect("finite");
    relu(&negative, &mut z).expect("finite");
    y.iter_mut().zip(&z).for_each(|(y, z)| *y = *y - *z);
    y.iter().zip(&x).for_each(|(y, x)| assert!(y == x, "relu(x) - relu(-x) = x"));
    assert_same(
        "norm is even",
        &[l2_norm(&x).unwrap_or(T::infinity())],
        &[l2_norm(&negative).unwrap_or(T::infinity())],
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn softmax_and_log_sum_exp(vector in vector()) {
        on_every_isa(|_| {
            softmax_laws::<f32>(vector);
            softmax_laws::<f64>(vector);
        });
    }

    #[test]
    fn scaling_by_powers_of_two(vector in vector(), n in -40..40) {
        on_every_isa(|_| {
            scaling_laws::<f32>(vector, n);
            scaling_laws::<f64>(vector, 10 * n);
        });
    }

    #[test]
    fn clipping(vector in vector(), seed: u64, kind in 0..6_usize) {
        on_every_isa(|_| {
            clipping_laws::<f32>(vector, draw::<f32>(&mut common::Rng(seed), KINDS[kind]).abs());
            clipping_laws::<f64>(vector, draw::<f64>(&mut common::Rng(seed), KINDS[kind]).abs());
        });
    }

    #[test]
    fn merging(seed: u64, lens in prop::collection::vec(0..40_000_usize, 0..5), kind in 0..6_usize) {
        on_every_isa(|_| {
            merging_laws::<f32>(seed, &lens, KINDS[kind]);
            merging_laws::<f64>(seed, &lens, KINDS[kind]);
        });
    }

    #[test]
    fn products(seed: u64, shape in (1..20_usize, 1..40_usize, 1..50_usize), kind in 0..6_usize) {
        on_every_isa(|_| {
            product_laws::<f32>(seed, shape, KINDS[kind]);
            product_laws::<f64>(seed, shape, KINDS[kind]);
        });
    }

    #[test]
    fn gradients_of_products_are_adjoint(seed in 0..1_u64 << 60, shape in (1..20_usize, 1..40_usize, 1..50_usize)) {
        on_every_isa(|_| adjoint(seed, shape));
    }

    #[test]
    fn odd_and_even_functions(vector in vector()) {
        on_every_isa(|_| {
            odd_laws::<f32>(vector);
            odd_laws::<f64>(vector);
        });
    }
}

/// Every length, so every tail: against the reference, where it is one number or one for each element.
fn every_length<T: Float>() {
    for len in 0..=200 {
        let x = data::<T>(len as u64, Kind::Within(5.0), len);
        let z = data::<T>(1000 + len as u64, Kind::Within(5.0), len);
        let one = reference::Wide::from(1);
        let zero = reference::Wide::from(0);
        let maps: [(&str, Vec<reference::Wide>, f64); 11] = [
            ("relu", x.iter().map(|&x| reference::relu(x)).collect(), 0.0),
            ("tanh", x.iter().map(|&x| reference::tanh(x)).collect(), 1.5),
            ("tanh_backward", x.iter().zip(&z).map(|(&x, &z)| reference::tanh_backward(x, z)).collect(), 4.0),
            ("safe_div", x.iter().zip(&z).map(|(&x, &z)| reference::safe_div(x, z)).collect(), 0.5),
            ("safe_mul", x.iter().zip(&z).map(|(&x, &z)| reference::safe_mul(x, z)).collect(), 0.5),
            ("atan2", x.iter().zip(&z).map(|(&x, &z)| reference::atan2(x, z)).collect(), 0.66),
            ("safe_recip", x.iter().map(|&x| one / x.into()).collect(), 0.5),
            (
                "safe_ln",
                x.iter().map(|&x| if x > T::zero() { reference::Wide::new(x).ln() } else { zero }).collect(),
                0.59,
            ),
            ("xlogy", x.iter().zip(&z).map(|(&x, &z)| reference::xlogy(x, z)).collect(), 0.51),
            ("softmax", reference::softmax(&x), 2.0),
            ("log_softmax", reference::log_softmax(&x), 2.0),
        ];
        let numbers = [
            ("sum", reference::sum(&x), reference::sum(&x.iter().map(|x| x.abs()).collect::<Vec<_>>()).to_f64()),
            ("l2_norm", reference::l2_norm(&x), 0.0),
            ("logsumexp", reference::logsumexp(&x), 0.0),
            ("dot", reference::dot(&x, &z), 25.0 * len as f64),
        ];
        let ops = every_op::<T>();
        let run_on = |name: &str| {
            let (_, run) = ops.iter().find(|op| op.0 == name).expect("the names of every_op");
            run(Case { rows: 1, cols: len, x: &x, y: &z, z: &z, g: T::one() }).values
        };
        on_every_isa(|isa| {
            for (name, want, bound) in &maps {
                let got = run_on(name);
                let worst = got.iter().zip(want).map(|(&got, &want)| ulp_error(got, want)).fold(0.0, f64::max);
                assert!(worst <= *bound, "{name} of {len} on {isa}: {worst}");
            }
            for (name, want, size) in &numbers {
                let got = run_on(name)[0];
                // Of a sum that cancels, the bound is on the terms.
                let error = (reference::Wide::new(got) - *want).abs().to_f64();
                let cancelled = error <= (len * len) as f64 * wide(T::epsilon()).powi(2) * size;
                assert!(cancelled || ulp_error(got, *want) <= 2.0, "{name} of {len} on {isa}: {got:e}");
            }
        });
    }
}

#[test]
fn every_length_has_its_tail() {
    every_length::<f32>();
    every_length::<f64>();
}

/// Nothing in, nothing out.
fn empty<T: Float>() {
    assert_eq!((sum::<T>(&[]), dot::<T>(&[], &[]), l2_norm::<T>(&[])), (Ok(T::zero()), Ok(T::zero()), Ok(T::zero())));
    for (rows, cols) in [(0, 0), (0, 5), (5, 0)] {
        assert_eq!(softmax::<T>(mat(&[], rows, cols), mat_mut(&mut [], rows, cols)), Ok(0));
        let mut lse = vec![T::nan(); rows];
        logsumexp::<T>(mat(&[], rows, cols), &mut lse).expect("no fault");
        assert_same("log-sum-exp", &lse, &vec![T::neg_infinity(); rows]);
    }
    let mut db = [T::nan(); 3];
    safe_div_backward(&[], &[T::one(); 3], &[], &mut [], &mut db).expect("no fault");
    assert_same("no rows", &db, &[T::zero(); 3]);
    let mut c = [T::nan(); 6];
    matmul::<T>(mat(&[], 2, 0), mat(&[], 0, 3), mat_mut(&mut c, 2, 3)).expect("no fault");
    assert_same("a product over nothing", &c, &[T::zero(); 6]);
    matmul::<T>(mat(&[], 0, 2), mat(&[T::nan(); 6], 2, 3), mat_mut(&mut [], 0, 3)).expect("no fault");
}

#[test]
fn empty_operands() {
    everywhere!(empty);
}
