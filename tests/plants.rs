//! One NaN or infinity is planted in a random operand of a training step: the log of faults has to give the exact place
//! back. Steps with masks and without a plant have to raise nothing.

mod common;

use std::sync::Mutex;
use std::thread;

use common::{Kind, Rng, data, mat, mat_mut};
use nanproof::{
    Activation, Class, CrossEntropy, FaultKind, FaultLog, Index, LinearGradients, MatRef, Result, Sgd,
    clip_by_global_norm, cross_entropy_with_gradient, linear, linear_backward, matmul, matmul_backward, relu,
    relu_backward, softmax, softmax_backward,
};

/// Two threads share the batch: each has so many samples.
const SAMPLES: usize = 6;
const FEATURES: usize = 5;
const UNITS: usize = 7;
const CLASSES: usize = 4;
const STEPS: u64 = 3;

/// The target of samples that do not count.
const IGNORED: u32 = 99;

/// A tensor of a step, and who reads it first: layer, operation, operand.
type Site = (&'static str, [&'static str; 3], &'static [f32]);

const ANY: &[f32] = &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
/// What is infinite there may be right: a mask, an event that is sure, a unit that is cut off.
const NAN: &[f32] = &[f32::NAN];

const SITES: [Site; 19] = [
    ("x", ["layer 1", "linear", "x"], ANY),
    ("w1", ["layer 1", "linear", "w"], ANY),
    ("b1", ["layer 1", "linear", "bias"], ANY),
    ("z", ["layer 1", "relu", "x"], &[f32::NAN, f32::INFINITY]),
    ("h", ["attention", "matmul", "a"], ANY),
    ("scores", ["attention", "softmax", "x"], NAN),
    ("p", ["attention", "matmul", "a"], ANY),
    ("c", ["layer 2", "linear", "x"], ANY),
    ("w2", ["layer 2", "linear", "w"], ANY),
    ("b2", ["layer 2", "linear", "bias"], ANY),
    ("logits", ["loss", "cross_entropy_with_gradient", "logits"], NAN),
    ("dlogits", ["layer 2", "linear_backward", "dy"], ANY),
    ("dc", ["attention", "matmul_backward", "dc"], ANY),
    ("dp", ["attention", "softmax_backward", "dp"], ANY),
    ("dh", ["layer 1", "relu_backward", "dy"], ANY),
    ("dz", ["layer 1", "linear_backward", "dy"], ANY),
    ("dw1", ["optimizer", "clip_by_global_norm", "tensors"], ANY),
    ("dw2", ["optimizer", "clip_by_global_norm", "tensors"], ANY),
    ("v1", ["optimizer", "sgd", "v"], ANY),
];

/// What is planted, and when.
#[derive(Clone, Copy, Debug)]
struct Plant {
    site: &'static str,
    value: f32,
    step: u64,
    shard: usize,
    /// Chooses the element.
    seed: u64,
}

/// A step of one thread.
struct Shard<'a> {
    step: u64,
    number: usize,
    faults: &'a FaultLog,
    plant: Option<Plant>,
    /// Where it was planted.
    planted: &'a Mutex<Option<(usize, usize)>>,
}

impl Shard<'_> {
    /// Plants, if this is the place, at an element that is read; the tensor has so many columns.
    fn pass(&self, site: &str, x: &mut [f32], cols: usize, is_read: impl Fn(usize) -> bool) {
        let is_here = |plant: &Plant| (plant.site, plant.step, plant.shard) == (site, self.step, self.number);
        let Some(plant) = self.plant.filter(is_here) else { return };
        let candidates: Vec<usize> = (0..x.len()).filter(|&i| is_read(i)).collect();
        if candidates.is_empty() {
            return;
        }
        let at = candidates[Rng(plant.seed).below(candidates.len())];
        x[at] = plant.value;
        *self.planted.lock().expect("no thread panics") = Some((at / cols, at % cols));
    }

    fn note<R>(&self, layer: &str, result: Result<R>) {
        self.faults.note(self.step, layer, result).expect("the shapes fit");
    }
}

#[derive(Clone)]
struct Network {
    w1: Vec<f32>,
    b1: Vec<f32>,
    w2: Vec<f32>,
    b2: Vec<f32>,
    v1: Vec<f32>,
    v2: Vec<f32>,
}

impl Network {
    fn new(rng: &mut Rng) -> Self {
        let mut draw = |len| data(rng.bits(), Kind::Within(0.7), len);
        Self {
            w1: draw(UNITS * FEATURES),
            b1: draw(UNITS),
            w2: draw(CLASSES * UNITS),
            b2: draw(CLASSES),
            v1: vec![0.0; UNITS * FEATURES],
            v2: vec![0.0; CLASSES * UNITS],
        }
    }

    /// The gradients of the weights by the samples of one thread: a layer, masked attention of the samples to each
    /// other, a layer, a loss.
    fn gradients(&self, shard: &Shard<'_>, rng: &mut Rng) -> [Vec<f32>; 2] {
        let (n, anywhere) = (SAMPLES, |_| true);
        let mut x: Vec<f32> = data(rng.bits(), Kind::Within(2.0), n * FEATURES);
        let mask: Vec<bool> = (0..n * n).map(|_| rng.below(3) == 0).collect();
        let targets: Vec<u32> =
            (0..n).map(|_| if rng.below(4) == 0 { IGNORED } else { rng.below(CLASSES) as u32 }).collect();

        let (mut z, mut h) = (vec![0.0; n * UNITS], vec![0.0; n * UNITS]);
        shard.pass("x", &mut x, FEATURES, anywhere);
        let (x, w1) = (mat(&x, n, FEATURES), mat(&self.w1, UNITS, FEATURES));
        shard.note("layer 1", linear(Activation::Identity, x, w1, Some(&self.b1), mat_mut(&mut z, n, UNITS)));
        shard.pass("z", &mut z, n * UNITS, anywhere);
        shard.note("layer 1", relu(&z, &mut h));
        shard.pass("h", &mut h, UNITS, anywhere);

        let (mut scores, mut p, mut c) = (vec![0.0; n * n], vec![0.0; n * n], vec![0.0; n * UNITS]);
        let h = mat(&h, n, UNITS);
        shard.note("attention", matmul(h, h.t(), mat_mut(&mut scores, n, n)));
        scores.iter_mut().zip(&mask).filter(|(_, masked)| **masked).for_each(|(x, _)| *x = f32::NEG_INFINITY);
        shard.pass("scores", &mut scores, n, anywhere);
        shard.note("attention", softmax(mat(&scores, n, n), mat_mut(&mut p, n, n)));
        let p_plain = p.clone();
        shard.pass("p", &mut p, n, anywhere);
        shard.note("attention", matmul(mat(&p, n, n), h, mat_mut(&mut c, n, UNITS)));
        shard.pass("c", &mut c, UNITS, anywhere);

        let (c, w2) = (mat(&c, n, UNITS), mat(&self.w2, CLASSES, UNITS));
        let (mut logits, mut dlogits) = (vec![0.0; n * CLASSES], vec![0.0; n * CLASSES]);
        shard.note("layer 2", linear(Activation::Identity, c, w2, Some(&self.b2), mat_mut(&mut logits, n, CLASSES)));
        for (row, _) in targets.iter().enumerate().filter(|(_, target)| **target == IGNORED) {
            logits[row * CLASSES] = f32::NAN; // not read
        }
        shard.pass("logits", &mut logits, CLASSES, |i| targets[i / CLASSES] != IGNORED);
        let options = CrossEntropy { ignore: Some(IGNORED), ..CrossEntropy::default() };
        let (logits, out) = (mat(&logits, n, CLASSES), mat_mut(&mut dlogits, n, CLASSES));
        shard.note("loss", cross_entropy_with_gradient(options, logits, &targets, out));
        shard.pass("dlogits", &mut dlogits, CLASSES, anywhere);

        let (mut dw1, mut dw2) = (vec![0.0; self.w1.len()], vec![0.0; self.w2.len()]);
        let (mut dc, mut dp, mut dh) = (vec![0.0; n * UNITS], vec![0.0; n * n], vec![0.0; n * UNITS]);
        shard.note("layer 2", through_linear(c, w2, mat(&dlogits, n, CLASSES), Some(&mut dc), &mut dw2));
        shard.pass("dc", &mut dc, UNITS, anywhere);
        let (dc, p, mut d_scores) = (mat(&dc, n, UNITS), mat(&p_plain, n, n), vec![0.0; n * n]);
        shard.note("attention", matmul_backward(p, h, dc, mat_mut(&mut dp, n, n), mat_mut(&mut dh, n, UNITS)));
        shard.pass("dp", &mut dp, n, |i| p_plain[i] > 0.0);
        shard.note("attention", softmax_backward(p, mat(&dp, n, n), mat_mut(&mut d_scores, n, n)));
        let d_scores = mat(&d_scores, n, n);
        let mut dh_too = vec![0.0; n * UNITS];
        shard.note("attention", matmul(d_scores, h, mat_mut(&mut dh_too, n, UNITS)));
        dh.iter_mut().zip(&dh_too).for_each(|(a, b)| *a += b);
        shard.note("attention", matmul(d_scores.t(), h, mat_mut(&mut dh_too, n, UNITS)));
        dh.iter_mut().zip(&dh_too).for_each(|(a, b)| *a += b);
        shard.pass("dh", &mut dh, n * UNITS, |i| z[i] > 0.0);
        let mut dz = vec![0.0; n * UNITS];
        shard.note("layer 1", relu_backward(&z, &dh, &mut dz));
        shard.pass("dz", &mut dz, UNITS, anywhere);
        shard.note("layer 1", through_linear(x, w1, mat(&dz, n, UNITS), None, &mut dw1));
        [dw1, dw2]
    }
}

fn through_linear(
    x: MatRef<'_, f32>,
    w: MatRef<'_, f32>,
    dy: MatRef<'_, f32>,
    dx: Option<&mut [f32]>,
    dw: &mut [f32],
) -> Result<()> {
    let mut dz = vec![0.0; dy.rows() * dy.cols()];
    let gradients = LinearGradients {
        dz: mat_mut(&mut dz, dy.rows(), dy.cols()),
        dx: dx.map(|dx| mat_mut(dx, x.rows(), x.cols())),
        dw: mat_mut(dw, w.rows(), w.cols()),
        db: None,
    };
    linear_backward(Activation::Identity, x, w, dy, dy, gradients)
}

/// Trains for some steps on two threads, and says where it planted.
fn train(seed: u64, plant: Option<Plant>) -> (FaultLog, Option<(usize, usize)>) {
    let mut rng = Rng(seed);
    let (mut network, faults, planted) = (Network::new(&mut rng), FaultLog::new(50), Mutex::new(None));
    let sgd = Sgd { learning_rate: 0.05, momentum: 0.9, weight_decay: 0.0 };
    for step in 0..STEPS {
        let whole = Shard { step, number: 0, faults: &faults, plant, planted: &planted };
        whole.pass("w1", &mut network.w1, FEATURES, |_| true);
        whole.pass("b1", &mut network.b1, UNITS, |_| true);
        whole.pass("w2", &mut network.w2, UNITS, |_| true);
        whole.pass("b2", &mut network.b2, CLASSES, |_| true);
        let seeds = [rng.bits(), rng.bits()];
        let gradients = thread::scope(|scope| {
            let shards = [0, 1].map(|number| {
                let (network, shard) = (&network, Shard { number, ..whole });
                scope.spawn(move || network.gradients(&shard, &mut Rng(seeds[number])))
            });
            shards.map(|shard| shard.join().expect("no thread panics"))
        });
        let [mut gradient, other] = gradients;
        for (total, other) in gradient.iter_mut().zip(&other) {
            total.iter_mut().zip(other).for_each(|(a, b)| *a += b);
        }
        let [dw1, dw2] = &mut gradient;
        whole.pass("dw1", dw1, usize::MAX, |_| true);
        whole.pass("dw2", dw2, usize::MAX, |_| true);
        whole.note("optimizer", clip_by_global_norm(&mut [dw1, dw2], 1.0));
        whole.pass("v1", &mut network.v1, usize::MAX, |_| true);
        whole.note("optimizer", sgd.step(&mut network.w1, dw1, &mut network.v1));
        whole.note("optimizer", sgd.step(&mut network.w2, dw2, &mut network.v2));
    }
    (faults, planted.into_inner().expect("no thread panics"))
}

/// How the operation that reads a tensor first counts its elements.
fn index_of(site: &str, (row, col): (usize, usize)) -> Index {
    match site {
        "b1" | "b2" | "z" | "dh" | "v1" => Index::At(col),
        "dw1" => Index::Tensor(0, col),
        "dw2" => Index::Tensor(1, col),
        _ => Index::Cell(row, col),
    }
}

#[test]
fn every_plant_is_found() {
    let mut rng = Rng(1);
    let (mut found, mut of_sites) = (0, [0; SITES.len()]);
    for seed in 0.. {
        let number = rng.below(SITES.len());
        let (site, [layer, operation, operand], values) = SITES[number];
        let is_shared = ["w1", "b1", "w2", "b2", "dw1", "dw2", "v1"].contains(&site);
        let plant = Plant {
            site,
            value: values[rng.below(values.len())],
            step: rng.bits() % STEPS,
            shard: if is_shared { 0 } else { rng.below(2) },
            seed: rng.bits(),
        };
        let (faults, planted) = train(seed, Some(plant));
        let Some(planted) = planted else { continue }; // no element of that tensor is read in that step
        let first = faults.first_cause().unwrap_or_else(|| panic!("{plant:?} was missed"));
        let found_at = (first.step, first.layer.as_str(), first.report.operation, first.report.operand);
        assert_eq!(found_at, (plant.step, layer, operation, operand), "{plant:?}: {first}");
        assert_eq!(first.report.index, index_of(site, planted), "{plant:?}: {first}");
        assert_eq!(Some(first.report.class), Class::of(plant.value), "{plant:?}: {first}");
        assert_eq!((first.kind, first.report.counts.total()), (FaultKind::InData, 1), "{plant:?}: {first}");
        let born = faults.faults().iter().filter(|fault| fault.kind == FaultKind::InData).count();
        assert_eq!(born, 1, "{plant:?}: what it led to is no cause\n{faults}");
        found += 1;
        of_sites[number] += 1;
        if found == 1000 {
            break;
        }
    }
    println!("found {found} plants, by tensor {of_sites:?}");
    assert!(of_sites.iter().all(|&count| count > 20), "each tensor has its share: {of_sites:?}");
}

#[test]
fn clean_steps_raise_nothing() {
    for seed in 0..1000_u64.div_ceil(STEPS) {
        let (faults, _) = train(seed, None);
        assert!(faults.is_empty(), "{faults}");
    }
}
