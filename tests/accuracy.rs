//! The largest error of every operation, against the reference, on every instruction set: the bounds of the
//! documentation.

mod common;

use common::{Kind, Rng, Worst, assert_same, data, draw, mat, mat_mut, num, nums, on_every_isa};
use nanproof::reference::{self, Wide};
use nanproof::{
    Adam, AdamW, CrossEntropy, Float, Matmul, NormPartial, Reduction, Safe, Sgd, atan2, atan2_backward,
    clip_by_global_norm, clip_by_norm, clip_by_rms, clip_rows_by_norm, clip_unitwise, cross_entropy,
    cross_entropy_backward, dot, dot_backward, l2_norm, l2_norm_backward, log_softmax, log_softmax_backward, logsumexp,
    logsumexp_backward, matmul, matmul_with, safe_div, safe_div_backward, safe_ln, safe_ln_backward, safe_mul,
    safe_mul_backward, safe_pow, safe_pow_backward, safe_recip, safe_recip_backward, safe_rsqrt, safe_rsqrt_backward,
    safe_sqrt, safe_sqrt_backward, softmax, softmax_backward, sum, tanh, tanh_backward, unscale, xlog1py,
    xlog1py_backward, xlogy, xlogy_backward,
};

/// Half a unit in the last place of 1.
fn unit_roundoff<T: Float>() -> Wide {
    Wide::new(T::epsilon()) / Wide::new(2.0_f64)
}

/// The smallest positive number.
fn smallest<T: Float>() -> Wide {
    Wide::new(T::from_bits(1))
}

/// `|got - want| / bound`.
fn share<T: Float>(got: T, want: Wide, bound: Wide) -> f64 {
    let error = (Wide::new(got) - want).abs();
    if error == Wide::new(T::zero()) { 0.0 } else { (error / bound).to_f64() }
}

/// Rows of logits of many kinds and lengths.
fn rows<T: Float>() -> Vec<(String, Vec<T>)> {
    let mut rows = Vec::new();
    for len in [1, 2, 3, 15, 16, 17, 64, 130, 1000, 4096] {
        for (seed, (name, center, spread)) in [
            ("near 0", 0.0, 1.0),
            ("within 20", 0.0, 20.0),
            ("near 20", 20.0, 1.0),
            ("near -20", -20.0, 1.0),
            ("within 100", 0.0, 100.0),
            ("wide", 0.0, 1000.0),
            ("close to one another", 3.0, 1e-6),
        ]
        .into_iter()
        .enumerate()
        {
            let x = data::<T>(seed as u64, Kind::Within(spread), len);
            rows.push((format!("{len} {name}"), x.into_iter().map(|x| x + num(center)).collect()));
        }
    }
    let flat = |len: usize, at: f64, rest: f64| {
        let mut x = vec![num::<T>(rest); len];
        x[len / 2] = num(at);
        x
    };
    for len in [2, 5, 100, 4096] {
        rows.push((format!("{len} confident"), flat(len, 30.0, 0.1)));
        rows.push((format!("{len} all the same"), flat(len, -7.3, -7.3)));
        rows.push((format!("{len} one small"), flat(len, -50.3, 1.7)));
        rows.push((format!("{len} huge"), data(3, Kind::Huge, len)));
        rows.push((format!("{len} of every size"), data(4, Kind::AnyFinite, len)));
        rows.push((format!("{len} tiny"), data(5, Kind::Tiny, len)));
        let cancel = -(len as f64).ln();
        let x = data::<T>(6, Kind::Within(1e-3), len).into_iter().map(|x| x + num(cancel)).collect();
        rows.push((format!("{len} nearly cancelling"), x));
    }
    rows
}

fn softmax_family<T: Float>() {
    let [mut p, mut log_p, mut lse, mut cancelled, mut dlse] =
        ["softmax", "log_softmax", "logsumexp", "logsumexp, of the maximum", "logsumexp_backward"].map(Worst::of::<T>);
    for (name, x) in rows::<T>() {
        let n = x.len();
        let factors: [T; 4] = nums::<T>(&[1.0, -0.3, 1e30, 1e-30]).try_into().expect("four");
        let want = (reference::softmax(&x), reference::log_softmax(&x), reference::logsumexp(&x));
        let want_dlse = factors.map(|dy| reference::logsumexp_backward(&x, dy));
        on_every_isa(|isa| {
            let context = format!("{isa}, {name}");
            let mut y = vec![T::nan(); n];
            assert_eq!(softmax(mat(&x, 1, n), mat_mut(&mut y, 1, n)), Ok(0));
            p.compare(&y, &want.0, &context);
            let overflows = want.1.iter().any(|y| y.abs() > Wide::new(T::max_value()));
            assert_eq!(log_softmax(mat(&x, 1, n), mat_mut(&mut y, 1, n)).is_err(), overflows, "{context}");
            log_p.compare(&y, &want.1, &context);
            logsumexp(mat(&x, 1, n), &mut y[..1]).expect(&context);
            let max = x.iter().copied().fold(T::neg_infinity(), T::max);
            if max >= T::zero() {
                lse.compare(&y[..1], &[want.2], &context);
            } else {
                let size = max.abs().max(T::min_positive_value());
                let ulp = Wide::new(T::from_bits(size.to_bits() + 1)) - Wide::new(size);
                let error = share(y[0], want.2, ulp).min(reference::ulp_error(y[0], want.2));
                cancelled.meet(error, || context.clone());
            }
            for (dy, want) in factors.iter().zip(&want_dlse) {
                logsumexp_backward(mat(&x, 1, n), &[*dy], mat_mut(&mut y, 1, n)).expect(&context);
                dlse.compare(&y, want, &format!("{context}, dy {dy:e}"));
            }
        });
    }
    p.assert_at_most(2.0);
    log_p.assert_at_most(2.0);
    lse.assert_at_most(2.0);
    cancelled.assert_at_most(2.0);
    dlse.assert_at_most(3.0);
}

#[test]
fn softmax_and_log_sum_exp() {
    softmax_family::<f32>();
    softmax_family::<f64>();
}

fn softmax_gradients<T: Float>() {
    let [mut dx_share, mut log_share] =
        ["softmax_backward, of its bound", "log_softmax_backward, of its bound"].map(Worst::of::<T>);
    let u = unit_roundoff::<T>();
    let [two, three, five] = [2.0, 3.0, 5.0].map(Wide::new::<f64>);
    for (name, x) in rows::<T>() {
        let n = x.len();
        let narrow = |x: Vec<Wide>| x.into_iter().map(|x| num::<T>(x.to_f64())).collect::<Vec<_>>();
        let (p, y) = (narrow(reference::softmax(&x)), narrow(reference::log_softmax(&x)));
        let exp_y = y.iter().map(|&y| Wide::new(y).exp()).collect::<Vec<_>>();
        for kind in [Kind::Within(1.0), Kind::Whole, Kind::Huge, Kind::AnyFinite, Kind::Tiny] {
            let dy = data::<T>(n as u64, kind, n);
            let (want, want_log) = (reference::softmax_backward(&p, &dy), reference::log_softmax_backward(&y, &dy));
            let p_sum = reference::dot(&p, &dy).abs();
            let lost = Wide::new(n as f64) * smallest::<T>();
            let counted = y.iter().zip(&dy).filter(|(y, _)| y.is_finite()).map(|(_, dy)| *dy).collect::<Vec<_>>();
            let log_sum = reference::sum(&counted).abs();
            on_every_isa(|isa| {
                let context = format!("{isa}, {name}, {kind:?}");
                let mut dx = vec![T::nan(); n];
                let _ = softmax_backward(mat(&p, 1, n), mat(&dy, 1, n), mat_mut(&mut dx, 1, n));
                for i in 0..n {
                    let bound = u * Wide::new(p[i]) * (two * Wide::new(dy[i]).abs() + three * p_sum)
                        + lost * Wide::new(p[i])
                        + smallest::<T>();
                    let error = if dx[i].is_infinite() {
                        reference::ulp_error(dx[i], want[i])
                    } else {
                        share(dx[i], want[i], bound)
                    };
                    dx_share.meet(error, || format!("{context}: {:e} for {:e}", dx[i], want[i].to_f64()));
                }
                let _ = log_softmax_backward(mat(&y, 1, n), mat(&dy, 1, n), mat_mut(&mut dx, 1, n));
                for i in 0..n {
                    let bound = u * (Wide::new(dy[i]).abs() + five * exp_y[i] * log_sum) + smallest::<T>();
                    let error = if dx[i].is_infinite() {
                        reference::ulp_error(dx[i], want_log[i])
                    } else {
                        share(dx[i], want_log[i], bound)
                    };
                    log_share.meet(error, || format!("{context}: {:e} for {:e}", dx[i], want_log[i].to_f64()));
                }
            });
        }
    }
    for worst in [dx_share, log_share] {
        worst.assert_at_most(1.0);
    }
}

#[test]
fn gradients_of_softmax_and_log_softmax() {
    softmax_gradients::<f32>();
    softmax_gradients::<f64>();
}

fn losses<T: Float>() {
    let [mut value, mut gradient] = ["cross_entropy, one row", "cross_entropy_backward"].map(Worst::of::<T>);
    let options = CrossEntropy { ignore: None, reduction: Reduction::Sum, ..CrossEntropy::default() };
    let rows = rows::<T>().into_iter().filter(|(name, _)| !name.contains("huge") && !name.contains("every size"));
    for (name, x) in rows {
        let n = x.len();
        let largest = (0..n).fold(0, |best, i| if x[i] > x[best] { i } else { best });
        for target in [largest, 0, n - 1, n / 2] {
            let targets = [target as u32];
            let factors = nums::<T>(&[1.0, 1e25, -1e-3]);
            let want = reference::cross_entropy(options, mat(&x, 1, n), &targets);
            let want_gradients = factors
                .iter()
                .map(|&g| reference::cross_entropy_backward(options, mat(&x, 1, n), &targets, g))
                .collect::<Vec<_>>();
            on_every_isa(|isa| {
                let context = format!("{isa}, {name}, target {target}");
                let loss = cross_entropy(options, mat(&x, 1, n), &targets).expect(&context);
                value.compare(&[loss.value], &[want], &context);
                for (&g, want) in factors.iter().zip(&want_gradients) {
                    let mut dx = vec![T::nan(); n];
                    cross_entropy_backward(options, mat(&x, 1, n), &targets, g, mat_mut(&mut dx, 1, n))
                        .expect(&context);
                    gradient.compare(&dx, want, &format!("{context}, g {g:e}"));
                }
            });
        }
    }
    value.assert_at_most(2.0);
    gradient.assert_at_most(3.0);
}

#[test]
fn cross_entropy_and_its_gradient() {
    losses::<f32>();
    losses::<f64>();
}

/// The loss near a crossing of two logits, where the probability of the target is neither near 0 nor near 1, and
/// `p - 1` cancels most of a `p` that is not the largest.
fn two_classes<T: Float>() {
    let mut gradient = Worst::of::<T>("cross_entropy_backward, two classes");
    let options = CrossEntropy::default();
    for i in 0..2000 {
        let x = [num::<T>(0.01 * f64::from(i - 1000)), num(0.0)];
        let want = reference::cross_entropy_backward(options, mat(&x, 1, 2), &[0], T::one());
        on_every_isa(|isa| {
            let mut dx = [T::nan(); 2];
            cross_entropy_backward(options, mat(&x, 1, 2), &[0], T::one(), mat_mut(&mut dx, 1, 2)).expect("finite");
            gradient.compare(&dx, &want, &format!("{isa}, {x:?}"));
        });
    }
    gradient.assert_at_most(3.0);
}

#[test]
fn cross_entropy_gradient_of_two_classes() {
    two_classes::<f32>();
    two_classes::<f64>();
}

/// Means over many rows.
fn mean_losses<T: Float>() {
    let [mut value, mut gradient] = ["cross_entropy, mean", "cross_entropy_backward, mean"].map(Worst::of::<T>);
    let options = CrossEntropy { ignore: Some(3), reduction: Reduction::Mean, ..CrossEntropy::default() };
    for (rows, cols) in [(7, 5), (50, 20), (301, 10)] {
        let x = data::<T>(11, Kind::Within(8.0), rows * cols);
        let mut rng = Rng(12);
        let targets = (0..rows).map(|_| rng.below(cols) as u32).collect::<Vec<_>>();
        let want = reference::cross_entropy(options, mat(&x, rows, cols), &targets);
        let want_gradient = reference::cross_entropy_backward(options, mat(&x, rows, cols), &targets, T::one());
        on_every_isa(|isa| {
            let context = format!("{isa}, {rows} x {cols}");
            let loss = cross_entropy(options, mat(&x, rows, cols), &targets).expect(&context);
            assert_eq!(loss.count, targets.iter().filter(|&&t| t != 3).count());
            value.compare(&[loss.value], &[want], &context);
            let mut dx = vec![T::nan(); rows * cols];
            let dx_view = mat_mut(&mut dx, rows, cols);
            cross_entropy_backward(options, mat(&x, rows, cols), &targets, T::one(), dx_view).expect(&context);
            gradient.compare(&dx, &want_gradient, &context);
        });
    }
    // Two roundings more than the losses and the gradients of rows: the sum and the quotient.
    value.assert_at_most(3.0);
    gradient.assert_at_most(3.0);
}

#[test]
fn mean_cross_entropy() {
    mean_losses::<f32>();
    mean_losses::<f64>();
}

/// Vectors of every size and mixture.
fn vectors<T: Float>() -> Vec<(String, Vec<T>)> {
    let kinds = [Kind::Within(1.0), Kind::AnyFinite, Kind::Huge, Kind::Tiny, Kind::Whole];
    let mut vectors = Vec::new();
    for len in [0, 1, 2, 3, 9, 16, 17, 100, 1000, 4096, 4097, 10_000, 20_000] {
        for kind in kinds {
            vectors.push((format!("{len} {kind:?}"), data(len as u64, kind, len)));
        }
        // Squares that over- and underflow at the edge, and mixtures.
        let (root, tiny) = (T::max_value().sqrt(), T::min_positive_value().sqrt());
        for (name, scale) in
            [("squares overflow", root), ("squares underflow", tiny), ("squares vanish", tiny * num(1e-3))]
        {
            let x = data::<T>(len as u64 + 1, Kind::Within(1.0), len).into_iter().map(|x| x * scale).collect();
            vectors.push((format!("{len} {name}"), x));
        }
        let mut mixed = data::<T>(len as u64 + 2, Kind::Tiny, len);
        mixed.iter_mut().step_by(7).for_each(|x| *x = T::one());
        vectors.push((format!("{len} ones and tiny"), mixed));
        vectors.push((format!("{len} near the edge"), vec![tiny * num(3.0); len]));
        vectors.push((format!("{len} subnormal"), vec![T::from_bits(3); len]));
    }
    vectors
}

fn norms<T: Float>() {
    let [mut norm, mut gradient, mut clip] = ["l2_norm", "l2_norm_backward", "clip_by_norm"].map(Worst::of::<T>);
    for (name, x) in vectors::<T>() {
        let want = reference::l2_norm(&x);
        let overflows = want > Wide::new(T::max_value());
        let factors = nums::<T>(&[1.0, -1e30, 1e-30]);
        let want_gradients = factors.iter().map(|&g| reference::l2_norm_backward(&x, g)).collect::<Vec<_>>();
        let limits =
            [num(0.0), num(1e-3), num(1.0), T::min_positive_value(), T::max_value(), T::infinity(), T::from_bits(5)];
        let want_clips = limits.map(|max| reference::clip_by_norm(&x, max));
        on_every_isa(|isa| {
            let context = format!("{isa}, {name}");
            let partial = NormPartial::of(&x).and_then(|partial| partial.norm());
            assert_eq!(partial.is_ok(), l2_norm(&x).is_ok(), "{context}");
            match l2_norm(&x) {
                Ok(got) => norm.compare(&[got], &[want], &context),
                Err(error) => assert!(overflows, "{context}: {error}"),
            }
            let mut dx = vec![T::nan(); x.len()];
            for (&g, want) in factors.iter().zip(&want_gradients) {
                let result = l2_norm_backward(&x, g, &mut dx);
                let overflows = want.iter().any(|dx| dx.abs() > Wide::new(T::max_value()));
                assert_eq!(result.is_err(), overflows, "{context}");
                gradient.compare(&dx, want, &format!("{context}, g {g:e}"));
            }
            for (&max, want) in limits.iter().zip(&want_clips) {
                let mut clipped = x.clone();
                clip_by_norm(&mut clipped, max).expect(&context);
                clip.compare(&clipped, want, &format!("{context}, max {max:e}"));
                let mut parts = x.clone();
                let (first, second) = parts.split_at_mut(x.len() / 3);
                clip_by_global_norm(&mut [first, second], max).expect(&context);
                clip.compare(&parts, want, &format!("{context}, max {max:e}, in two tensors"));
                let mut row = x.clone();
                clip_rows_by_norm(mat_mut(&mut row, 1, x.len()), max, &mut [T::nan()]).expect(&context);
                assert_same(&context, &row, &clipped);
            }
        });
    }
    norm.assert_at_most(if T::LANES == 16 { 2.0 } else { 1.0 });
    gradient.assert_at_most(3.0);
    clip.assert_at_most(2.5);
}

/// Clipping by what is derived from norms, division by loss scales, and what one step of Adam does.
fn derived<T: Float>() {
    let [mut rms, mut unit, mut quotient, mut weights] =
        ["clip_by_rms", "clip_unitwise", "unscale", "adam"].map(Worst::of::<T>);
    for (rows, cols) in [(1, 1), (3, 17), (5, 100), (2, 5000)] {
        for kind in [Kind::Within(1.0), Kind::AnyFinite, Kind::Huge, Kind::Tiny, Kind::Whole] {
            let [w, g] = [1, 2].map(|seed| data::<T>(seed + cols as u64, kind, rows * cols));
            let count = Wide::new(num::<T>((rows * cols) as f64));
            for max in nums::<T>(&[1e-3, 1.0]) {
                let limit = (Wide::new(max) * Wide::new(max) * count).sqrt();
                let norm = reference::l2_norm(&g);
                let clipped = |x: T, limit: Wide, norm: Wide| {
                    if norm > limit { Wide::new(x) * limit / norm } else { Wide::new(x) }
                };
                let want = g.iter().map(|&x| clipped(x, limit, norm)).collect::<Vec<_>>();
                let (clipping, eps) = (num::<T>(0.01), max);
                let want_units = w.chunks(cols).zip(g.chunks(cols)).flat_map(|(w, g)| {
                    let (w, norm) = (reference::l2_norm(w), reference::l2_norm(g));
                    let limit = Wide::new(clipping) * if w > Wide::new(eps) { w } else { Wide::new(eps) };
                    g.iter().map(move |&g| clipped(g, limit, norm))
                });
                let want_units = want_units.collect::<Vec<_>>();
                on_every_isa(|isa| {
                    let context = format!("{isa}, {rows} x {cols} {kind:?}, {max:e}");
                    let mut x = g.clone();
                    clip_by_rms(&mut x, max).expect(&context);
                    rms.compare(&x, &want, &context);
                    let mut x = g.clone();
                    clip_unitwise(mat(&w, rows, cols), mat_mut(&mut x, rows, cols), clipping, eps).expect(&context);
                    unit.compare(&x, &want_units, &context);
                });
            }
            for loss_scale in nums::<T>(&[0.1, 3.0, 1000.0, 65536.0]) {
                let want = g.iter().map(|&g| Wide::new(g) / Wide::new(loss_scale)).collect::<Vec<_>>();
                let mut x = g.clone();
                let overflows = want.iter().any(|x| x.abs() > Wide::new(T::max_value()));
                assert_eq!(unscale(&mut [&mut x], loss_scale).is_err(), overflows);
                if !overflows {
                    quotient.compare(&x, &want, &format!("{kind:?} / {loss_scale}"));
                }
            }
        }
        // The first step: m / (1 - beta1) is the gradient, v / (1 - beta2) its square.
        let [mut w, g] = [3, 4].map(|seed| data::<T>(seed + cols as u64, Kind::Within(1.0), rows * cols));
        w.iter_mut().for_each(|w| *w = *w + num(2.0)); // far from where the step would cancel it
        let adam = Adam { learning_rate: num::<T>(1e-3), ..Adam::default() };
        let (mut got, mut m, mut v) = (w.clone(), vec![T::zero(); w.len()], vec![T::zero(); w.len()]);
        adam.step(1, &mut got, &g, &mut m, &mut v).expect("finite");
        let step = |g: T| Wide::new(g) / (Wide::new(g).abs() + Wide::new(adam.eps));
        let want = w.iter().zip(&g).map(|(&w, &g)| Wide::new(w) - Wide::new(adam.learning_rate) * step(g));
        weights.compare(&got, &want.collect::<Vec<_>>(), "the first step");
    }
    rms.assert_at_most(4.0);
    unit.assert_at_most(6.0);
    quotient.assert_at_most(1.5);
    weights.assert_at_most(2.0);
}

/// `[m, v, w]` after a step of Adam, with the weight decay taken from gradients or from weights.
fn adam_step<T: Float>(settings: AdamW<T>, of_gradients: bool, t: u32, [w, g, m, v]: [T; 4]) -> [Wide; 3] {
    let [rate, beta1, beta2, eps, decay] =
        [settings.learning_rate, settings.beta1, settings.beta2, settings.eps, settings.weight_decay].map(Wide::new);
    let one = Wide::new(T::one());
    let power = |x: Wide| (0..t).fold(one, |power, _| power * x);
    let [w, g, m, v] = [w, g, m, v].map(Wide::new);
    let g = if of_gradients { g + decay * w } else { g };
    let (m, v) = (beta1 * m + (one - beta1) * g, beta2 * v + (one - beta2) * g * g);
    let direction = m / (one - power(beta1)) / ((v / (one - power(beta2))).sqrt() + eps);
    let pull = if of_gradients { Wide::new(T::zero()) } else { decay * w };
    [m, v, w - rate * (pull + direction)]
}

/// Steps of the optimisers after the first, the means within their rounding.
fn later_steps<T: Float>() {
    let [mut means, mut weights] = ["means, of their rounding", "weights"].map(Worst::of::<T>);
    let len = 100;
    let [w, g, m, v] = [1, 2, 3, 4].map(|seed| data::<T>(seed, Kind::Within(1.0), len));
    let w = w.into_iter().map(|w| w + num(2.0)).collect::<Vec<_>>(); // far from where a step would cancel it
    let v = v.into_iter().map(|v| v.abs() + num(0.01)).collect::<Vec<_>>();
    let rounding =
        |x: &[T]| x.iter().fold(Wide::new(T::zero()), |sum, &x| sum + Wide::new(x).abs()) * unit_roundoff::<T>();
    let adamw = AdamW { weight_decay: num::<T>(0.1), ..AdamW::default() };
    let AdamW { learning_rate, beta1, beta2, eps, weight_decay } = adamw;
    let adam = Adam { learning_rate, beta1, beta2, eps, weight_decay };
    for t in [1, 2, 3, 6, 100, 10_001] {
        for of_gradients in [false, true] {
            let [mut new_w, mut new_m, mut new_v] = [&w, &m, &v].map(Vec::clone);
            let result = if of_gradients {
                adam.step(t, &mut new_w, &g, &mut new_m, &mut new_v)
            } else {
                adamw.step(t, &mut new_w, &g, &mut new_m, &mut new_v)
            };
            result.expect("finite");
            for i in 0..len {
                let context = || format!("step {t}, of gradients {of_gradients}, element {i}");
                let want = adam_step(adamw, of_gradients, t, [w[i], g[i], m[i], v[i]]);
                means.meet(share(new_m[i], want[0], rounding(&[m[i], g[i], w[i]])), context);
                means.meet(share(new_v[i], want[1], rounding(&[v[i], g[i], w[i]])), context);
                weights.compare(&new_w[i..=i], &want[2..], &context());
            }
        }
    }
    let sgd = Sgd { learning_rate: num::<T>(0.01), momentum: num(0.9), weight_decay };
    let [mut new_w, mut new_v] = [&w, &m].map(Vec::clone);
    sgd.step(&mut new_w, &g, &mut new_v).expect("finite");
    let [rate, momentum, decay] = [sgd.learning_rate, sgd.momentum, sgd.weight_decay].map(Wide::new);
    for i in 0..len {
        let velocity = momentum * Wide::new(m[i]) + Wide::new(g[i]) + decay * Wide::new(w[i]);
        means.meet(share(new_v[i], velocity, rounding(&[m[i], g[i], w[i]])), || format!("sgd, element {i}"));
        weights.compare(&new_w[i..=i], &[Wide::new(w[i]) - rate * velocity], &format!("sgd, element {i}"));
    }
    means.assert_at_most(1.0);
    weights.assert_at_most(2.0);
}

#[test]
fn later_steps_of_the_optimizers() {
    later_steps::<f32>();
    later_steps::<f64>();
}

#[test]
fn what_is_derived_from_norms() {
    derived::<f32>();
    derived::<f64>();
}

#[test]
fn norms_and_clipping() {
    norms::<f32>();
    norms::<f64>();
}

/// `u |s| + n^2 u^2 sum |terms|`, the bound of sums and dot products, with `n` smallest numbers for products.
fn sum_bound<T: Float>(value: Wide, magnitudes: Wide, n: usize, products: bool) -> Wide {
    let nu = Wide::new(n as f64) * unit_roundoff::<T>();
    let lost = if products { Wide::new(n as f64) * smallest::<T>() } else { smallest::<T>() };
    unit_roundoff::<T>() * value.abs() + nu * nu * magnitudes + lost
}

fn sums<T: Float>() {
    let [mut total, mut product] = ["sum, of its bound", "dot, of its bound"].map(Worst::of::<T>);
    let cancelling = [10, 1000, 9000].map(|n| {
        // Each number and, far away, its negative, with a small rest.
        let half = data::<T>(n as u64, Kind::AnyFinite, n);
        let mut x = half.clone();
        x.extend(data::<T>(2, Kind::Within(1.0), 5));
        x.extend(half.iter().rev().map(|&x| -x));
        (format!("{n} cancelling"), x)
    });
    for (name, x) in vectors::<T>().into_iter().chain(cancelling) {
        let n = x.len();
        let reversed = x.iter().rev().copied().collect::<Vec<_>>();
        let magnitudes = x.iter().map(|x| x.abs()).collect::<Vec<_>>();
        let ones = [data::<T>(1, Kind::Whole, n), reversed.clone(), vec![T::one(); n]];
        let want = reference::sum(&x);
        let bound = sum_bound::<T>(want, reference::sum(&magnitudes), n, false);
        let dots = ones.map(|b| {
            let want = reference::dot(&x, &b);
            let b_magnitudes = b.iter().map(|x| x.abs()).collect::<Vec<_>>();
            (sum_bound::<T>(want, reference::dot(&magnitudes, &b_magnitudes), n, true), want, b)
        });
        let is_over = |x: Wide| x.abs() > Wide::new(T::max_value());
        on_every_isa(|isa| {
            let context = format!("{isa}, {name}");
            match sum(&x) {
                Ok(got) => {
                    total.meet(share(got, want, bound), || format!("{context}: {got:e} for {:e}", want.to_f64()));
                }
                Err(error) => assert!(is_over(want), "{context}: {error}"),
            }
            for (bound, want, b) in &dots {
                match dot(&x, b) {
                    Ok(got) => product
                        .meet(share(got, *want, *bound), || format!("{context}: {got:e} for {:e}", want.to_f64())),
                    Err(error) => assert!(is_over(*want), "{context}: {error}"),
                }
            }
        });
    }
    total.assert_at_most(1.0);
    product.assert_at_most(1.0);
}

#[test]
fn sums_and_dot_products() {
    sums::<f32>();
    sums::<f64>();
}

fn dot_gradients<T: Float>() {
    let mut worst = Worst::of::<T>("dot_backward");
    for kind in [Kind::Within(1.0), Kind::AnyFinite, Kind::Tiny] {
        let (a, b) = (data::<T>(1, kind, 333), data::<T>(2, kind, 333));
        for g in nums::<T>(&[1.0, -0.7, 1e-20, 1e-42, 1e20]) {
            let times_g = |x: &[T]| x.iter().map(|&x| Wide::new(x) * Wide::new(g)).collect::<Vec<_>>();
            let (want_a, want_b) = (times_g(&b), times_g(&a));
            on_every_isa(|isa| {
                let (mut da, mut db) = (vec![T::nan(); 333], vec![T::nan(); 333]);
                let _ = dot_backward(&a, &b, g, &mut da, &mut db);
                worst.compare(&da, &want_a, &format!("{isa}, {kind:?}, g {g:e}"));
                worst.compare(&db, &want_b, &format!("{isa}, {kind:?}, g {g:e}"));
            });
        }
    }
    // Rounded once, and once more where g or the result is subnormal.
    worst.assert_at_most(1.0);
}

#[test]
fn gradients_of_dot_products() {
    dot_gradients::<f32>();
    dot_gradients::<f64>();
}

fn quotients<T: Float>() {
    let [mut q_worst, mut da_worst, mut db_worst, mut mul_worst] =
        ["safe_div", "safe_div_backward, da", "safe_div_backward, db", "safe_mul and its gradients"]
            .map(Worst::of::<T>);
    let mut rng = Rng(5);
    let kinds = [Kind::Within(2.0), Kind::AnyFinite, Kind::Huge, Kind::Tiny, Kind::Whole];
    let n = 30_000;
    let mut draw_any = || {
        let kind = kinds[rng.below(kinds.len())];
        draw::<T>(&mut rng, kind)
    };
    let a = (0..n).map(|_| draw_any()).collect::<Vec<_>>();
    let b = (0..n).map(|_| draw_any()).collect::<Vec<_>>();
    let g = (0..n).map(|_| draw_any()).collect::<Vec<_>>();
    let want_q = (0..n).map(|i| reference::safe_div(a[i], b[i])).collect::<Vec<_>>();
    let want = (0..n).map(|i| reference::safe_div_backward(a[i], b[i], g[i])).collect::<Vec<_>>();
    on_every_isa(|isa| {
        let (mut q, mut da, mut db) = (vec![T::nan(); n], vec![T::nan(); n], vec![T::nan(); n]);
        let _ = safe_div(&a, &b, &mut q);
        let _ = safe_div_backward(&a, &b, &g, &mut da, &mut db);
        for i in 0..n {
            let context = format!("{isa}, a {:e}, b {:e}, g {:e}", a[i], b[i], g[i]);
            q_worst.compare(&q[i..=i], &want_q[i..=i], &context);
            da_worst.compare(&da[i..=i], &want[i][..1], &context);
            db_worst.compare(&db[i..=i], &want[i][1..], &context);
        }
        let _ = safe_mul(&a, &b, &mut q);
        let _ = safe_mul_backward(&a, &b, &g, &mut da, &mut db);
        for i in 0..n {
            let context = format!("{isa}, a {:e}, b {:e}, g {:e}", a[i], b[i], g[i]);
            let [want_da, want_db] = reference::safe_mul_backward(a[i], b[i], g[i]);
            mul_worst.compare(&[q[i], da[i], db[i]], &[reference::safe_mul(a[i], b[i]), want_da, want_db], &context);
        }
    });
    mul_worst.assert_at_most(0.5);
    q_worst.assert_at_most(0.5);
    da_worst.assert_at_most(0.5);
    db_worst.assert_at_most(2.0);
}

#[test]
fn division_multiplication_and_their_gradients() {
    quotients::<f32>();
    quotients::<f64>();
}

/// Positive numbers of every size, and around 1.
fn positive<T: Float>(n: usize) -> Vec<T> {
    let mut x = [Kind::AnyFinite, Kind::Tiny, Kind::Within(4.0), Kind::Huge]
        .into_iter()
        .flat_map(|kind| data::<T>(31, kind, n / 8))
        .map(|x| x.abs().max(T::from_bits(1)))
        .collect::<Vec<_>>();
    x.extend(data::<T>(32, Kind::Within(1e-3), n / 4).into_iter().map(|x| T::one() + x));
    x.extend(data::<T>(33, Kind::Within(0.9), n / 4).into_iter().map(|x| T::one() + x));
    x
}

/// A function of one operand, its gradient, what they should be, and the bounds.
type Unary<T> = (
    &'static str,
    fn(Safe<T>, &[T], &mut [T]) -> nanproof::Result<usize>,
    fn(Safe<T>, &[T], &[T], &mut [T]) -> nanproof::Result<usize>,
    fn(Wide) -> Wide,
    fn(Wide) -> Wide,
    [f64; 2],
);

fn functions<T: Float>() {
    let functions: [Unary<T>; 4] = [
        (
            "safe_recip",
            safe_recip,
            safe_recip_backward,
            |x| Wide::from(1) / x,
            |x| -(Wide::from(1) / (x * x)),
            [0.5, 1.5],
        ),
        (
            "safe_sqrt",
            safe_sqrt,
            safe_sqrt_backward,
            Wide::sqrt,
            |x| Wide::from(1) / (x.sqrt() * Wide::from(2)),
            [0.5, 1.5],
        ),
        (
            "safe_rsqrt",
            safe_rsqrt,
            safe_rsqrt_backward,
            |x| Wide::from(1) / x.sqrt(),
            |x| -(Wide::from(1) / (x.sqrt() * Wide::from(2) * x)),
            [1.5, 2.5],
        ),
        ("safe_ln", safe_ln, safe_ln_backward, Wide::ln, |x| Wide::from(1) / x, [0.59, 0.5]),
    ];
    let x = positive::<T>(8000);
    let n = x.len();
    let g = [Kind::Within(2.0), Kind::AnyFinite, Kind::Tiny, Kind::Huge]
        .into_iter()
        .enumerate()
        .map(|(seed, kind)| data::<T>(seed as u64, kind, n))
        .collect::<Vec<_>>();
    for (name, forward, backward, value, slope, bounds) in functions {
        let mut worst = Worst::of::<T>(name);
        let mut gradient = Worst::of::<T>(&format!("{name}_backward"));
        let want = x.iter().map(|&x| value(Wide::new(x))).collect::<Vec<_>>();
        let slopes = x.iter().map(|&x| slope(Wide::new(x))).collect::<Vec<_>>();
        let mut y = vec![T::nan(); n];
        let _ = forward(Safe::default(), &x, &mut y);
        worst.compare(&y, &want, name);
        for g in &g {
            let want = slopes.iter().zip(g).map(|(&slope, &g)| slope * Wide::new(g)).collect::<Vec<_>>();
            let _ = backward(Safe::default(), &x, g, &mut y);
            for i in 0..n {
                gradient.compare(&y[i..=i], &want[i..=i], &format!("x {:e}, g {:e}", x[i], g[i]));
            }
        }
        worst.assert_at_most(bounds[0]);
        gradient.assert_at_most(bounds[1]);
    }
}

#[test]
fn guarded_functions() {
    functions::<f32>();
    functions::<f64>();
}

fn powers<T: Float>() {
    let [mut z_worst, mut dx_worst, mut dy_worst] =
        ["safe_pow", "safe_pow_backward, dx", "safe_pow_backward, dy"].map(Worst::of::<T>);
    let mut log_worst = ["xlogy", "xlogy_backward, dx", "xlogy_backward, dy"].map(Worst::of::<T>);
    let mut log1p_worst = ["xlog1py", "xlog1py_backward, dx", "xlog1py_backward, dy"].map(Worst::of::<T>);
    let x = positive::<T>(1600);
    let n = x.len();
    for (seed, (y_kind, g_kind)) in [
        (Kind::Within(2.0), Kind::Within(1.0)),
        (Kind::Within(40.0), Kind::AnyFinite),
        (Kind::Whole, Kind::Huge),
        (Kind::Within(3e4), Kind::Tiny),
        (Kind::AnyFinite, Kind::AnyFinite),
        (Kind::Within(0.1), Kind::Huge),
    ]
    .into_iter()
    .enumerate()
    {
        let (y, g) = (data::<T>(seed as u64, y_kind, n), data::<T>(seed as u64 + 9, g_kind, n));
        let mut out = [(); 3].map(|()| vec![T::nan(); n]);
        let compare = |worst: [&mut Worst; 3], out: &[Vec<T>; 3], want: &dyn Fn(usize) -> [Wide; 3]| {
            let [a, b, c] = worst;
            for i in 0..n {
                let context = format!("x {:e}, y {:e}, g {:e}", x[i], y[i], g[i]);
                for (k, worst) in [&mut *a, &mut *b, &mut *c].into_iter().enumerate() {
                    worst.compare(&out[k][i..=i], &want(i)[k..=k], &context);
                }
            }
        };
        let [z, dx, dy] = &mut out;
        let _ = safe_pow(Safe::default(), &x, &y, z);
        let _ = safe_pow_backward(Safe::default(), &x, &y, &g, dx, dy);
        compare([&mut z_worst, &mut dx_worst, &mut dy_worst], &out, &|i| {
            let [dx, dy] = reference::pow_backward(x[i], y[i], g[i]);
            [reference::pow(x[i], y[i]), dx, dy]
        });
        // The positive number is what the logarithm is of.
        let [z, dx, dy] = &mut out;
        let _ = xlogy(&y, &x, z);
        let _ = xlogy_backward(&y, &x, &g, dx, dy);
        compare(log_worst.each_mut(), &out, &|i| {
            let [dx, dy] = reference::xlogy_backward(y[i], x[i], g[i]);
            [reference::xlogy(y[i], x[i]), dx, dy]
        });
        let shifted = x.iter().map(|&x| if x < num(2.0) { x - T::one() } else { x }).collect::<Vec<_>>();
        let above = shifted.iter().map(|&u| if u == -T::one() { T::one() } else { u }).collect::<Vec<_>>();
        let [z, dx, dy] = &mut out;
        let _ = xlog1py(&y, &above, z);
        let _ = xlog1py_backward(&y, &above, &g, dx, dy);
        compare(log1p_worst.each_mut(), &out, &|i| {
            let [dx, dy] = reference::xlog1py_backward(y[i], above[i], g[i]);
            [reference::xlog1py(y[i], above[i]), dx, dy]
        });
    }
    z_worst.assert_at_most(0.7);
    dx_worst.assert_at_most(3.0);
    dy_worst.assert_at_most(3.0);
    log_worst
        .iter()
        .chain(&log1p_worst)
        .zip([1.0, 1.0, 1.5, 1.0, 1.0, 2.5])
        .for_each(|(worst, bound)| worst.assert_at_most(bound));
}

/// A whole power of a negative number is that of its magnitude, but for the sign.
fn powers_of_negative_numbers<T: Float>() {
    let x = positive::<T>(1600);
    let n = x.len();
    let (y, g) = (data::<T>(1, Kind::Whole, n), data::<T>(2, Kind::Within(1.0), n));
    let results = |x: &[T]| {
        let mut out = [(); 3].map(|()| vec![T::nan(); n]);
        let [z, dx, dy] = &mut out;
        let _ = safe_pow(Safe::default(), x, &y, z);
        let _ = safe_pow_backward(Safe::default(), x, &y, &g, dx, dy);
        out
    };
    let (of_magnitudes, got) = (results(&x), results(&x.iter().map(|&x| -x).collect::<Vec<_>>()));
    for i in 0..n {
        let [z, dx, _] = of_magnitudes.each_ref().map(|out| out[i]);
        let is_odd = (y[i] / num(2.0)).fract() != T::zero();
        let want = if is_odd { [-z, dx, T::zero()] } else { [z, -dx, T::zero()] };
        assert_eq!(got.each_ref().map(|out| out[i]), want, "x {:e}, y {:e}, g {:e}", -x[i], y[i], g[i]);
    }
}

#[test]
fn powers_and_logarithms() {
    powers::<f32>();
    powers::<f64>();
    everywhere!(powers_of_negative_numbers);
}

/// The gradient of an operand that counts for every row.
fn broadcast<T: Float>() {
    let mut worst = Worst::of::<T>("safe_div_backward, db of a row, of its bound");
    for (rows, cols) in [(5, 3), (300, 1), (7, 1000), (3000, 5), (2, 5000), (9000, 1)] {
        let [a, g] = [1, 2].map(|seed| data::<T>(seed, Kind::Within(2.0), rows * cols));
        let b = data::<T>(3, Kind::Within(1.0), cols).into_iter().map(|b| b + num(1.5)).collect::<Vec<_>>();
        let (mut q, mut da, mut db) = (vec![T::nan(); rows * cols], vec![T::nan(); rows * cols], vec![T::nan(); cols]);
        let full = b.iter().copied().cycle().take(rows * cols).collect::<Vec<_>>();
        let (mut full_q, mut full_da, mut full_db) = (q.clone(), q.clone(), q.clone());
        safe_div(&a, &b, &mut q).expect("finite");
        safe_div(&a, &full, &mut full_q).expect("finite");
        safe_div_backward(&a, &b, &g, &mut da, &mut db).expect("finite");
        safe_div_backward(&a, &full, &g, &mut full_da, &mut full_db).expect("finite");
        assert_same("q", &q, &full_q);
        assert_same("da", &da, &full_da);
        for j in 0..cols {
            let terms = (j..rows * cols).step_by(cols);
            let want = terms.clone().map(|i| reference::safe_div_backward(a[i], b[j], g[i])[1]);
            let size = want.clone().fold(Wide::from(0), |sum, x| sum + x.abs());
            let sum = want.fold(Wide::from(0), |sum, x| sum + x);
            worst.meet(share(db[j], sum, unit_roundoff::<T>() * size * Wide::from(5)), || format!("{rows} x {cols}"));
        }
    }
    worst.assert_at_most(1.0);
}

#[test]
fn an_operand_for_every_row() {
    broadcast::<f32>();
    broadcast::<f64>();
}

fn hyperbolic_tangents<T: Float>(bound: f64) {
    let [mut value, mut gradient] = ["tanh", "tanh_backward"].map(Worst::of::<T>);
    for kind in
        [Kind::Within(1.0), Kind::Within(20.0), Kind::AnyFinite, Kind::Tiny, Kind::Within(0.01), Kind::Within(100.0)]
    {
        let x = data::<T>(21, kind, 3000);
        let want = x.iter().map(|&x| reference::tanh(x)).collect::<Vec<_>>();
        let upstream = nums::<T>(&[1.0, -0.1, 1e30, 1e-30]);
        let dy = upstream.iter().copied().cycle().take(3000).collect::<Vec<_>>();
        let want_gradient = x.iter().zip(&dy).map(|(&x, &dy)| reference::tanh_backward(x, dy)).collect::<Vec<_>>();
        on_every_isa(|isa| {
            let mut y = vec![T::nan(); 3000];
            tanh(&x, &mut y).expect("finite");
            for i in 0..3000 {
                value.compare(&y[i..=i], &want[i..=i], &format!("{isa}, {:e}", x[i]));
            }
            tanh_backward(&x, &dy, &mut y).expect("finite");
            for i in 0..3000 {
                gradient.compare(&y[i..=i], &want_gradient[i..=i], &format!("{isa}, {:e}, dy {:e}", x[i], dy[i]));
            }
        });
    }
    value.assert_at_most(bound);
    gradient.assert_at_most(4.0);
}

#[test]
fn tanh_and_its_gradient() {
    hyperbolic_tangents::<f32>(1.0);
    hyperbolic_tangents::<f64>(1.5);
}

fn products<T: Float>() {
    let [mut plain, mut scaled] = ["matmul, of its bound", "matmul_with, of its bound"].map(Worst::of::<T>);
    let block = if T::LANES == 16 { 512 } else { 256 };
    for (m, k, n) in [(1, 1, 1), (3, 7, 5), (17, 100, 33), (2, 512, 3), (5, 1025, 20), (3, 5000, 2)] {
        for kind in [Kind::Within(1.0), Kind::Whole, Kind::AnyFinite, Kind::Tiny, Kind::Huge] {
            let (a, b, c) = (data::<T>(1, kind, m * k), data::<T>(2, kind, k * n), data::<T>(3, kind, m * n));
            let magnitudes = |x: &[T]| x.iter().map(|x| x.abs()).collect::<Vec<_>>();
            let want = reference::matmul(mat(&a, m, k), mat(&b, k, n));
            let sizes = reference::matmul(mat(&magnitudes(&a), m, k), mat(&magnitudes(&b), k, n));
            let count = Wide::new((k.min(block) + k.div_ceil(block)) as f64);
            let lost = Wide::new(k as f64) * smallest::<T>();
            let bounds = sizes.iter().map(|&size| count * unit_roundoff::<T>() * size + lost).collect::<Vec<_>>();
            let options = Matmul { alpha: num(0.7), beta: num(-1.3) };
            let (alpha, beta) = (Wide::new(options.alpha), Wide::new(options.beta));
            on_every_isa(|isa| {
                let context = format!("{isa}, {m} x {k} x {n}, {kind:?}");
                let mut got = vec![T::nan(); m * n];
                let _ = matmul(mat(&a, m, k), mat(&b, k, n), mat_mut(&mut got, m, n));
                for i in 0..m * n {
                    let error = if got[i].is_finite() {
                        share(got[i], want[i], bounds[i])
                    } else {
                        reference::ulp_error(got[i], want[i])
                    };
                    plain.meet(error, || format!("{context}: {:e} for {:e}", got[i], want[i].to_f64()));
                }
                got.copy_from_slice(&c);
                let _ = matmul_with(options, mat(&a, m, k), mat(&b, k, n), mat_mut(&mut got, m, n));
                for i in 0..m * n {
                    let old = beta * Wide::new(c[i]);
                    let want = alpha * want[i] + old;
                    // The roundings of alpha times each block, beta times C, and their sums.
                    let slack = Wide::new(4.0_f64) * unit_roundoff::<T>() * (alpha.abs() * sizes[i] + old.abs());
                    let bound = alpha.abs() * bounds[i] + slack + smallest::<T>() + smallest::<T>();
                    let error = if got[i].is_finite() {
                        share(got[i], want, bound)
                    } else {
                        reference::ulp_error(got[i], want)
                    };
                    scaled.meet(error, || format!("{context}: {:e} for {:e}", got[i], want.to_f64()));
                }
            });
        }
    }
    plain.assert_at_most(1.0);
    scaled.assert_at_most(1.0);
}

#[test]
fn matrix_products() {
    products::<f32>();
    products::<f64>();
}

/// Points of any size and near axes and diagonals, and gradients of any size.
fn angles<T: Float>() {
    let [mut worst, mut dy_worst, mut dx_worst] =
        ["atan2", "atan2_backward, dy", "atan2_backward, dx"].map(Worst::of::<T>);
    let mut rng = Rng(7);
    let kinds = [Kind::Within(2.0), Kind::AnyFinite, Kind::Huge, Kind::Tiny, Kind::Whole];
    let n = 30_000;
    let mut draw_any = || {
        let kind = kinds[rng.below(kinds.len())];
        draw::<T>(&mut rng, kind)
    };
    let [y, mut x, g] = [(); 3].map(|()| (0..n).map(|_| draw_any()).collect::<Vec<_>>());
    let near = data::<T>(8, Kind::Within(1.0), n);
    for i in (0..n).step_by(3) {
        let shift = num::<T>(2.0_f64.powi(-((i % 29) as i32)));
        let beside = y[i] * (T::one() + near[i] * shift); // from all around to the diagonal
        x[i] = if beside.is_finite() { beside } else { -y[i] };
    }
    let want = (0..n).map(|i| reference::atan2(y[i], x[i])).collect::<Vec<_>>();
    let want_gradients = (0..n).map(|i| reference::atan2_backward(y[i], x[i], g[i])).collect::<Vec<_>>();
    on_every_isa(|isa| {
        let [mut angle, mut dy, mut dx] = [(); 3].map(|()| vec![T::nan(); n]);
        atan2(&y, &x, &mut angle).expect("finite");
        let _ = atan2_backward(&y, &x, &g, &mut dy, &mut dx);
        for i in 0..n {
            let context = format!("{isa}, y {:e}, x {:e}, g {:e}", y[i], x[i], g[i]);
            worst.compare(&angle[i..=i], &want[i..=i], &context);
            dy_worst.compare(&dy[i..=i], &want_gradients[i][..1], &context);
            dx_worst.compare(&dx[i..=i], &want_gradients[i][1..], &context);
        }
    });
    worst.assert_at_most(0.66);
    dy_worst.assert_at_most(2.5);
    dx_worst.assert_at_most(2.5);
}

#[test]
fn angles_and_their_gradients() {
    angles::<f32>();
    angles::<f64>();
}

/// The reference itself, where the answer is known to all digits.
#[test]
fn the_reference_is_right() {
    let digits = |x: Wide, high: f64, low: f64| {
        let error = x - Wide::new(high) - Wide::new(low);
        assert!((error.abs() / x.abs()).to_f64() < 1e-30, "{:e}", (error / x).to_f64());
    };
    // Each constant as the nearest f64 and the nearest f64 of the rest.
    digits(Wide::new(1.0_f64).exp(), std::f64::consts::E, 1.445_646_891_729_250_2e-16);
    digits(Wide::new(1.0_f64).ln_1p(), std::f64::consts::LN_2, 2.319_046_813_846_299_6e-17);
    digits(Wide::new(2.0_f64).sqrt(), std::f64::consts::SQRT_2, -9.667_293_313_452_913e-17);
    digits(Wide::new(1.0_f64).tanh(), 0.7615941559557649, 3.709_021_448_216_492_4e-17);
    digits(reference::atan2(1.0_f64, 1.0), std::f64::consts::FRAC_PI_4, 3.061_616_997_868_383e-17);
    digits(reference::atan2(1.0_f64, 2.0), 0.4636476090008061, 2.269_877_745_296_168_7e-17);
    digits(reference::atan2(1e300_f64, -1e-300), std::f64::consts::FRAC_PI_2, 6.123_233_995_736_766e-17);
    // Beside 1 a small number is kept as it is or has no place, and does not become another.
    for (x, kept) in [(-500.0_f64, 1.0), (-1000.0, 0.0)] {
        let (one, small) = (Wide::new(1.0_f64), Wide::new(x).exp());
        assert_eq!(((one + small - one) / small).to_f64(), kept);
    }
    assert_eq!(reference::sum(&[f64::MAX, f64::from_bits(1), -f64::MAX]).to_f64(), f64::from_bits(1));
    assert_eq!(reference::dot(&[f32::INFINITY, 1.0], &[1.0, 1.0]).to_f64(), f64::INFINITY);
    assert!(reference::dot(&[f32::INFINITY, 1.0], &[0.0, 1.0]).to_f64().is_nan());
    assert_eq!(reference::ulp_error(f32::INFINITY, f32::MAX), 1.0);
    assert_eq!(reference::ulp_error(0.0_f32, f32::from_bits(2)), 2.0);
}
