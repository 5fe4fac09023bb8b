//! The training by a recipe: every operation of a step is looked at, and the first step with a fault is the last.

use anyhow::Result;
use nanproof::{
    CrossEntropy, FaultLog, GradientLog, GradientRules, Matmul, clip_by_global_norm, cross_entropy_with_gradient,
    matmul, matmul_backward, matmul_with, relu, relu_backward, safe_div, tanh, tanh_backward,
};
use rand::RngExt;
use rand::seq::SliceRandom;

use crate::cause::{Hidden, Input, Loss, Recipe};
use crate::data::{Data, Samples};
use crate::matrix::Matrix;
use crate::network::{Activation, Layer, Network};
use crate::optimizer::Optimizer;
use crate::probe::{Place, Probe};
use crate::random::{Use, random};
use crate::textbook;

/// Samples a step.
const BATCH: usize = 32;

/// Units of the hidden layers.
const HIDDEN: [usize; 2] = [128, 64];

/// A run of training.
pub(crate) struct Run {
    pub(crate) steps: u64,
    pub(crate) faults: FaultLog,
    pub(crate) log: GradientLog,
    /// Where the first fault was born, found by plain loops.
    pub(crate) truth: Option<Place>,
    /// On the test set; 0 if the run ended with a fault.
    pub(crate) accuracy: f64,
}

impl Run {
    /// Where the reports say that it was born.
    pub(crate) fn reported(&self) -> Option<Place> {
        let cols = self.truth.as_ref()?.cols;
        self.faults.first_cause().filter(|fault| fault.report.is_born_here()).map(|fault| Place::reported(&fault, cols))
    }
}

/// Trains until the end, or until the first step with a fault.
pub(crate) fn train(recipe: &Recipe, data: &Data, epochs: u16, seed: u64) -> Result<Run> {
    let (samples, tests) = (recipe.prepare(&data.train), recipe.prepare(&data.test));
    let mut network = recipe.network(samples.features.cols, data.classes, seed);
    let mut optimizer = Optimizer::new(recipe.optimizer, recipe.learning_rate, 0.001, &network.layers);
    let (faults, mut log) = (FaultLog::new(100), GradientLog::new(GradientRules::default()));
    let mut rng = random(seed, Use::Batches);
    let mut order: Vec<usize> = (0..samples.classes.len()).collect();
    let mut step = 0;
    for _ in 0..epochs {
        order.shuffle(&mut rng);
        for batch in order.chunks(BATCH) {
            step += 1;
            let mut probe = Probe { faults: &faults, step, truth: None };
            let targets: Vec<u32> = batch.iter().map(|&sample| samples.classes[sample]).collect();
            recipe.gradients(&mut network.layers, &samples.features.select(batch), &targets, &mut probe)?;
            // A log that fails does not end a run.
            for layer in &network.layers {
                log.record(step, &layer.name, &layer.gradient.data)
                    .map(drop)
                    .unwrap_or_else(|error| eprintln!("{error}"));
            }
            let truth = probe.truth;
            if let Some(limit) = recipe.clip {
                let mut gradients = network.layers.each_mut().map(|layer| &mut *layer.gradient.data);
                faults.note(step, "clipping", clip_by_global_norm(&mut gradients, limit))?;
            }
            if !faults.is_empty() {
                return Ok(Run { steps: step, faults, log, truth, accuracy: 0.0 });
            }
            let before = network.layers.each_ref().map(|layer| layer.parameters.data.clone());
            optimizer.update(&mut network.layers)?;
            for (layer, before) in network.layers.iter().zip(&before) {
                let recorded = log.record_update(step, &layer.name, before, &layer.parameters.data);
                recorded.map(drop).unwrap_or_else(|error| eprintln!("{error}"));
            }
        }
    }
    let mut probe = Probe { faults: &faults, step: step + 1, truth: None };
    let accuracy = recipe.accuracy(&network.layers, &tests, &mut probe)?;
    let truth = probe.truth;
    Ok(Run { steps: step, faults, log, truth, accuracy })
}

/// What a forward pass leaves: the input of each layer, its sums, and the logits.
struct Pass {
    inputs: [Matrix; 3],
    sums: [Matrix; 2],
    logits: Matrix,
}

impl Recipe {
    fn prepare(&self, samples: &Samples) -> Samples {
        let features = &samples.features;
        let features = match self.input {
            Input::Standardised => features.clone(),
            Input::Hundredfold => textbook::map(features, |x| 100.0 * x),
            Input::BatchTextbook | Input::BatchSafe => {
                // Whether a wine has far more sulphates than most: hardly one in a batch does.
                let row = |i| features.row(i).iter().copied().chain([f32::from(features.row(i)[9] > 4.0)]);
                let data = (0..features.rows).flat_map(row).collect();
                Matrix { rows: features.rows, cols: features.cols + 1, data }
            }
        };
        Samples { features, classes: samples.classes.clone() }
    }

    fn network(&self, features: usize, classes: usize, seed: u64) -> Network {
        let activation = if self.hidden == Hidden::Relu { Activation::Relu } else { Activation::Tanh };
        let mut rng = random(seed, Use::Weights);
        let mut network = Network::new([features, HIDDEN[0], HIDDEN[1], classes], activation, &mut rng);
        if self.unit_weights {
            for Layer { parameters, .. } in &mut network.layers {
                let weights = (parameters.rows - 1) * parameters.cols;
                let bound = 3_f32.sqrt(); // drawn evenly from -bound..bound, the variance is 1
                parameters.data[..weights].fill_with(|| rng.random_range(-bound..bound));
            }
        }
        network
    }

    fn accuracy(&self, layers: &[Layer; 3], samples: &Samples, probe: &mut Probe<'_>) -> Result<f64> {
        let logits = self.forward(layers, &samples.features, probe)?.logits;
        let largest = |row: &[f32]| (0..row.len()).max_by(|&i, &j| row[i].total_cmp(&row[j]));
        let is_correct = |&(i, &class): &(usize, &u32)| largest(logits.row(i)) == Some(class as usize);
        let correct = samples.classes.iter().enumerate().filter(is_correct).count();
        Ok(correct as f64 / samples.classes.len() as f64)
    }

    /// Computes the gradient of each layer.
    fn gradients(&self, layers: &mut [Layer; 3], x: &Matrix, targets: &[u32], probe: &mut Probe<'_>) -> Result<()> {
        let pass = self.forward(layers, x, probe)?;
        let mut dy = self.loss_gradient(&pass.logits, targets, probe)?;
        for n in (0..3).rev() {
            let dx = backward(&mut layers[n], &pass.inputs[n], &dy, probe)?;
            if n > 0 {
                dy = self.hidden_backward(&layers[n - 1].name, &pass.sums[n - 1], &pass.inputs[n], &dx, probe)?;
            }
        }
        Ok(())
    }

    fn forward(&self, layers: &[Layer; 3], x: &Matrix, probe: &mut Probe<'_>) -> Result<Pass> {
        let [layer1, layer2, layer3] = layers;
        let x = self.standardise(x, probe)?;
        let z1 = forward(layer1, &x, probe)?;
        let h1 = self.hidden_forward(&layer1.name, &z1, probe)?;
        let z2 = forward(layer2, &h1, probe)?;
        let h2 = self.hidden_forward(&layer2.name, &z2, probe)?;
        let logits = forward(layer3, &h2, probe)?;
        Ok(Pass { inputs: [x, h1, h2], sums: [z1, z2], logits })
    }

    fn standardise(&self, x: &Matrix, probe: &mut Probe<'_>) -> Result<Matrix> {
        if !matches!(self.input, Input::BatchTextbook | Input::BatchSafe) {
            return Ok(x.clone());
        }
        let [mean, deviation] = textbook::columns(x);
        let centred = textbook::zip(x, &mean, |x, mean| x - mean);
        if self.input == Input::BatchTextbook {
            let y = textbook::zip(&centred, &deviation, |x, deviation| x / deviation);
            probe.textbook("input", "divide", &[("centred", &centred), ("deviation", &deviation)], ("y", &y))?;
            return Ok(y);
        }
        let mut y = Matrix::zeros_like(x);
        let result = safe_div(&centred.data, &deviation.data, &mut y.data).map(drop);
        probe.kernel("input", "safe_div", &[("a", &centred), ("b", &deviation)], ("q", &y), result)?;
        Ok(y)
    }

    fn hidden_forward(&self, layer: &str, z: &Matrix, probe: &mut Probe<'_>) -> Result<Matrix> {
        let mut h = Matrix::zeros_like(z);
        let (operation, result) = match self.hidden {
            Hidden::TextbookTanh => {
                let h = textbook::map(z, textbook::tanh);
                probe.textbook(layer, "textbook tanh", &[("z", z)], ("h", &h))?;
                return Ok(h);
            }
            Hidden::Relu => ("relu", relu(&z.data, &mut h.data)),
            Hidden::Tanh => ("tanh", tanh(&z.data, &mut h.data)),
        };
        probe.kernel(layer, operation, &[("x", z)], ("y", &h), result)?;
        Ok(h)
    }

    fn hidden_backward(
        &self,
        layer: &str,
        z: &Matrix,
        h: &Matrix,
        dh: &Matrix,
        probe: &mut Probe<'_>,
    ) -> Result<Matrix> {
        let mut dz = Matrix::zeros_like(z);
        let (operation, result) = match self.hidden {
            Hidden::TextbookTanh => {
                let dz = textbook::zip(h, dh, |h, dh| (1.0 - h * h) * dh);
                probe.textbook(layer, "textbook tanh, backward", &[("h", h), ("dh", dh)], ("dz", &dz))?;
                return Ok(dz);
            }
            Hidden::Relu => ("relu_backward", relu_backward(&z.data, &dh.data, &mut dz.data)),
            Hidden::Tanh => ("tanh_backward", tanh_backward(&z.data, &dh.data, &mut dz.data)),
        };
        probe.kernel(layer, operation, &[("x", z), ("dy", dh)], ("dx", &dz), result)?;
        Ok(dz)
    }

    /// The gradient of the loss by the logits.
    fn loss_gradient(&self, logits: &Matrix, targets: &[u32], probe: &mut Probe<'_>) -> Result<Matrix> {
        let is_target = |i: usize, j: usize| f32::from(targets[i] as usize == j);
        let one_hot = Matrix {
            data: (0..logits.rows).flat_map(|i| (0..logits.cols).map(move |j| is_target(i, j))).collect(),
            ..*logits
        };
        match self.loss {
            Loss::Squares => {
                let distance = textbook::zip(logits, &one_hot, |x, target| x - target);
                probe.textbook("loss", "subtract", &[("logits", logits)], ("distance", &distance))?;
                let squares = textbook::map(&distance, |x| x * x);
                probe.textbook("loss", "square", &[("distance", &distance)], ("squares", &squares))?;
                Ok(textbook::map(&distance, |x| 2.0 * x))
            }
            Loss::Textbook { temperature, shifted } => {
                let scaled = textbook::map(logits, |x| x / temperature);
                let x = if shifted { textbook::shift_rows(&scaled) } else { scaled };
                let e = textbook::map(&x, f32::exp);
                probe.textbook("loss", "exp", &[("x", &x)], ("e", &e))?;
                let p = textbook::normalise_rows(&e);
                probe.textbook("loss", "divide by the sum", &[("e", &e)], ("p", &p))?;
                let of_target = |i: usize| p.row(i)[targets[i] as usize];
                let p_target = Matrix { rows: p.rows, cols: 1, data: (0..p.rows).map(of_target).collect() };
                let losses = textbook::map(&p_target, |p| -p.ln());
                probe.textbook("loss", "-ln", &[("p", &p_target)], ("losses", &losses))?;
                let scale = 1.0 / (temperature * logits.rows as f32);
                Ok(textbook::zip(&p, &one_hot, |p, target| (p - target) * scale))
            }
            Loss::CrossEntropy { temperature } => {
                let x = textbook::map(logits, |x| x / temperature);
                let mut dx = Matrix::zeros_like(logits);
                let result = cross_entropy_with_gradient(CrossEntropy::default(), x.view(), targets, dx.view_mut());
                probe.kernel(
                    "loss",
                    "cross_entropy_with_gradient",
                    &[("logits", &x)],
                    ("dlogits", &dx),
                    result.map(drop),
                )?;
                Ok(textbook::map(&dx, |dx| dx / temperature))
            }
        }
    }
}

/// `y = x W + b`.
fn forward(layer: &Layer, x: &Matrix, probe: &mut Probe<'_>) -> Result<Matrix> {
    let weights = layer.parameters.view().submatrix(0..x.cols, 0..layer.parameters.cols)?;
    let mut y = Matrix::repeated(layer.parameters.row(x.cols), x.rows);
    let result = matmul_with(Matmul { beta: 1.0, ..Matmul::default() }, x.view(), weights, y.view_mut());
    probe.kernel(&layer.name, "matmul", &[("a", x), ("b", &layer.parameters)], ("c", &y), result)?;
    Ok(y)
}

/// Computes `dW = x^T dy` and `db = 1^T dy`, and returns `dx = dy W^T`.
fn backward(layer: &mut Layer, x: &Matrix, dy: &Matrix, probe: &mut Probe<'_>) -> Result<Matrix> {
    let Layer { name, parameters, gradient } = layer;
    let weights = parameters.view().submatrix(0..x.cols, 0..parameters.cols)?;
    let (d_weights, d_bias) = gradient.view_mut().split_rows(x.cols)?;
    let (ones, mut dx) = (Matrix::repeated(&[1.0], dy.rows), Matrix::zeros_like(x));
    let result = matmul_backward(x.view(), weights, dy.view(), dx.view_mut(), d_weights);
    let result = result.and(matmul(ones.view().t(), dy.view(), d_bias));
    probe.kernel(name, "matmul_backward", &[("a", x), ("b", parameters), ("dc", dy)], ("da", &dx), result)?;
    Ok(dx)
}
