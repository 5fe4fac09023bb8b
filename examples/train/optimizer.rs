//! The optimiser: its settings and what it remembers of each layer.

use std::fmt;

use anyhow::{Context, Result};
use clap::ValueEnum;
use nanproof::{AdamW, Sgd};

use crate::matrix::Matrix;
use crate::network::Layer;

/// Which optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    /// Stochastic gradient descent with momentum 0.9
    Sgd,
    /// Adam with decoupled weight decay
    Adamw,
}

/// An optimiser of three layers.
#[derive(Debug)]
pub(crate) struct Optimizer {
    rule: Rule,
    step: u32,
    /// The velocity, or the means of the gradient and of its square, of each layer.
    memory: [[Matrix; 2]; 3],
}

#[derive(Debug)]
enum Rule {
    Sgd(Sgd<f32>),
    AdamW(AdamW<f32>),
}

impl Optimizer {
    pub(crate) fn new(method: Method, learning_rate: f32, weight_decay: f32, layers: &[Layer; 3]) -> Self {
        let rule = match method {
            Method::Sgd => Rule::Sgd(Sgd { learning_rate, momentum: 0.9, weight_decay }),
            Method::Adamw => Rule::AdamW(AdamW { learning_rate, weight_decay, ..AdamW::default() }),
        };
        let memory = layers.each_ref().map(|layer| [(); 2].map(|()| Matrix::zeros_like(&layer.parameters)));
        Self { rule, step: 0, memory }
    }

    /// Moves the parameters of each layer against their gradient.
    pub(crate) fn update(&mut self, layers: &mut [Layer; 3]) -> Result<()> {
        self.step += 1;
        for (Layer { name, parameters, gradient }, [m, v]) in layers.iter_mut().zip(&mut self.memory) {
            let (w, g) = (&mut parameters.data, &gradient.data);
            let updated = match &self.rule {
                Rule::Sgd(sgd) => sgd.step(w, g, &mut m.data),
                Rule::AdamW(adamw) => adamw.step(self.step, w, g, &mut m.data, &mut v.data),
            };
            updated.with_context(|| format!("{name}, update"))?;
        }
        Ok(())
    }
}

impl fmt::Display for Optimizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, learning_rate, weight_decay) = match &self.rule {
            Rule::Sgd(sgd) => ("sgd", sgd.learning_rate, sgd.weight_decay),
            Rule::AdamW(adamw) => ("adamw", adamw.learning_rate, adamw.weight_decay),
        };
        write!(f, "{name}, learning rate {learning_rate}, weight decay {weight_decay}")
    }
}
