//! The training: steps and epochs.

use std::fmt;

use anyhow::{Context, Result};
use nanproof::{Clip, CrossEntropy, Loss, clip_by_global_norm, cross_entropy_with_gradient};
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;

use crate::data::{Data, Samples};
use crate::matrix::Matrix;
use crate::network::Network;
use crate::optimizer::Optimizer;
use crate::options::Options;
use crate::random::{Use, random};

/// A network in training.
#[derive(Debug)]
pub(crate) struct Trainer {
    pub(crate) network: Network,
    optimizer: Optimizer,
    batch: usize,
    max_norm: f32,
    rng: ChaCha8Rng,
}

/// What one step saw.
struct Step {
    loss: Loss<f32>,
    norms: [f32; 3],
    clip: Clip<f32>,
}

/// What the steps of an epoch saw.
#[derive(Debug, Default)]
pub(crate) struct Epoch {
    pub(crate) steps: usize,
    samples: usize,
    total_loss: f64,
    total_norms: [f64; 3],
    pub(crate) clipped: usize,
    /// The largest global norm before clipping.
    pub(crate) largest_norm: f32,
}

impl Trainer {
    pub(crate) fn new(data: &Data, options: &Options) -> Self {
        let [width1, width2] = options.hidden;
        let widths = [data.features(), width1, width2, data.classes];
        let network = Network::new(widths, options.activation, &mut random(options.seed, Use::Weights));
        let (learning_rate, weight_decay) = (options.learning_rate(), options.weight_decay);
        Self {
            optimizer: Optimizer::new(options.optimizer, learning_rate, weight_decay, &network.layers),
            network,
            batch: options.batch,
            max_norm: options.clip,
            rng: random(options.seed, Use::Batches),
        }
    }

    /// Goes once through the samples in random order, a mini-batch a step.
    pub(crate) fn epoch(&mut self, samples: &Samples) -> Result<Epoch> {
        let mut order: Vec<usize> = (0..samples.classes.len()).collect();
        order.shuffle(&mut self.rng);
        let mut epoch = Epoch::default();
        for (i, batch) in order.chunks(self.batch).enumerate() {
            let x = samples.features.select(batch);
            let targets: Vec<u32> = batch.iter().map(|&sample| samples.classes[sample]).collect();
            epoch.add(&self.step(&x, &targets).with_context(|| format!("step {}", i + 1))?);
        }
        Ok(epoch)
    }

    fn step(&mut self, x: &Matrix, targets: &[u32]) -> Result<Step> {
        let pass = self.network.forward(x)?;
        let (loss, d_logits) = loss_with_gradient(&pass.logits, targets).context("loss")?;
        self.network.backward(x, &pass, &d_logits)?;
        let norms = self.network.gradient_norms()?;
        let clip = self.clip().context("clipping")?;
        self.optimizer.update(&mut self.network.layers)?;
        Ok(Step { loss, norms, clip })
    }

    /// Scales all gradients down by one factor if together they are longer than `max_norm`.
    fn clip(&mut self) -> nanproof::Result<Clip<f32>> {
        let mut gradients = self.network.layers.each_mut().map(|layer| &mut *layer.gradient.data);
        clip_by_global_norm(&mut gradients, self.max_norm)
    }
}

fn loss_with_gradient(logits: &Matrix, targets: &[u32]) -> nanproof::Result<(Loss<f32>, Matrix)> {
    let mut d_logits = Matrix::zeros_like(logits);
    let loss = cross_entropy_with_gradient(CrossEntropy::default(), logits.view(), targets, d_logits.view_mut())?;
    Ok((loss, d_logits))
}

impl Epoch {
    fn add(&mut self, step: &Step) {
        self.steps += 1;
        self.samples += step.loss.count;
        self.total_loss += f64::from(step.loss.value) * step.loss.count as f64;
        for (total, &norm) in self.total_norms.iter_mut().zip(&step.norms) {
            *total += f64::from(norm);
        }
        self.clipped += usize::from(step.clip.clipped);
        self.largest_norm = self.largest_norm.max(step.clip.norm);
    }

    pub(crate) fn mean_loss(&self) -> f64 {
        self.total_loss / self.samples as f64
    }

    /// The mean over the steps of the norm of each layer's gradient.
    pub(crate) fn mean_norms(&self) -> [f64; 3] {
        self.total_norms.map(|total| total / self.steps as f64)
    }
}

impl fmt::Display for Trainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.network.layers.each_ref().map(|layer| layer.parameters.cols.to_string()).join("-");
        let activation = format!("{:?}", self.network.activation).to_lowercase();
        write!(f, "layers {widths}, {activation}; {}; clip at {}", self.optimizer, self.max_norm)
    }
}
