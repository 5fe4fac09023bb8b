//! The network: two hidden layers and a linear one on top, forward and backward.

use anyhow::{Context, Result};
use clap::ValueEnum;
use nanproof::{Matmul, l2_norm, matmul, matmul_backward, matmul_with, relu, relu_backward, tanh, tanh_backward};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::data::Samples;
use crate::matrix::Matrix;

/// `logits = f(f(x W1 + b1) W2 + b2) W3 + b3`.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) layers: [Layer; 3],
    pub(crate) activation: Activation,
}

/// What a forward pass leaves for the backward pass.
#[derive(Debug)]
pub(crate) struct Pass {
    z1: Matrix,
    h1: Matrix,
    z2: Matrix,
    h2: Matrix,
    pub(crate) logits: Matrix,
}

impl Network {
    /// `widths`: of the input, the hidden layers and the output.
    pub(crate) fn new(widths: [usize; 4], activation: Activation, rng: &mut ChaCha8Rng) -> Self {
        let layers = [1, 2, 3].map(|n| Layer::new(n, widths[n - 1], widths[n], activation, rng));
        Self { layers, activation }
    }

    pub(crate) fn forward(&self, x: &Matrix) -> Result<Pass> {
        let ([layer1, layer2, layer3], f) = (&self.layers, self.activation);
        let z1 = layer1.forward(x)?;
        let h1 = f.forward(&z1)?;
        let z2 = layer2.forward(&h1)?;
        let h2 = f.forward(&z2)?;
        let logits = layer3.forward(&h2)?;
        Ok(Pass { z1, h1, z2, h2, logits })
    }

    /// Computes the gradient of each layer.
    pub(crate) fn backward(&mut self, x: &Matrix, pass: &Pass, d_logits: &Matrix) -> Result<()> {
        let ([layer1, layer2, layer3], f) = (&mut self.layers, self.activation);
        let d_h2 = layer3.backward(&pass.h2, d_logits)?;
        let d_z2 = f.backward(&pass.z2, &d_h2)?;
        let d_h1 = layer2.backward(&pass.h1, &d_z2)?;
        let d_z1 = f.backward(&pass.z1, &d_h1)?;
        layer1.backward(x, &d_z1)?;
        Ok(())
    }

    /// The L2 norm of each layer's gradient.
    pub(crate) fn gradient_norms(&self) -> Result<[f32; 3]> {
        let [layer1, layer2, layer3] = &self.layers;
        Ok([layer1.gradient_norm()?, layer2.gradient_norm()?, layer3.gradient_norm()?])
    }

    /// The share of the samples whose largest logit is that of their class.
    pub(crate) fn accuracy(&self, samples: &Samples) -> Result<f64> {
        let logits = self.forward(&samples.features)?.logits;
        let is_correct = |&(i, &class): &(usize, &u32)| argmax(logits.row(i)) == class as usize;
        let correct = samples.classes.iter().enumerate().filter(is_correct).count();
        Ok(correct as f64 / samples.classes.len() as f64)
    }
}

/// `y = x W + b`.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) name: String,
    /// The rows of `W`, and `b` as one more.
    pub(crate) parameters: Matrix,
    pub(crate) gradient: Matrix,
}

impl Layer {
    fn new(number: usize, inputs: usize, outputs: usize, activation: Activation, rng: &mut ChaCha8Rng) -> Self {
        let bound = activation.bound(inputs, outputs);
        let mut parameters = Matrix::zeros(inputs + 1, outputs);
        parameters.data[..inputs * outputs].fill_with(|| rng.random_range(-bound..bound));
        Self { name: format!("layer {number}"), gradient: Matrix::zeros_like(&parameters), parameters }
    }

    fn forward(&self, x: &Matrix) -> Result<Matrix> {
        self.affine(x).with_context(|| format!("{}, forward", self.name))
    }

    fn affine(&self, x: &Matrix) -> nanproof::Result<Matrix> {
        let weights = self.parameters.view().submatrix(0..x.cols, 0..self.parameters.cols)?;
        let bias = self.parameters.row(x.cols);
        let mut y = Matrix::repeated(bias, x.rows);
        matmul_with(Matmul { beta: 1.0, ..Matmul::default() }, x.view(), weights, y.view_mut())?;
        Ok(y)
    }

    /// Computes `dW = x^T dy` and `db = 1^T dy`, and returns `dx = dy W^T`.
    fn backward(&mut self, x: &Matrix, dy: &Matrix) -> Result<Matrix> {
        self.affine_backward(x, dy).with_context(|| format!("{}, backward", self.name))
    }

    fn affine_backward(&mut self, x: &Matrix, dy: &Matrix) -> nanproof::Result<Matrix> {
        let weights = self.parameters.view().submatrix(0..x.cols, 0..self.parameters.cols)?;
        let (d_weights, d_bias) = self.gradient.view_mut().split_rows(x.cols)?;
        let ones = Matrix::repeated(&[1.0], dy.rows);
        let mut dx = Matrix::zeros_like(x);
        matmul_backward(x.view(), weights, dy.view(), dx.view_mut(), d_weights)?;
        matmul(ones.view().t(), dy.view(), d_bias)?;
        Ok(dx)
    }

    fn gradient_norm(&self) -> Result<f32> {
        l2_norm(&self.gradient.data).with_context(|| format!("{}, norm of the gradient", self.name))
    }
}

/// The function between the layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Activation {
    /// max(x, 0)
    Relu,
    /// The hyperbolic tangent
    Tanh,
}

impl Activation {
    /// Weights are drawn evenly from `-bound..bound`: after He for relu, after Glorot for tanh.
    fn bound(self, inputs: usize, outputs: usize) -> f32 {
        match self {
            Self::Relu => (6.0 / inputs as f32).sqrt(),
            Self::Tanh => (6.0 / (inputs + outputs) as f32).sqrt(),
        }
    }

    fn forward(self, z: &Matrix) -> nanproof::Result<Matrix> {
        let mut h = Matrix::zeros_like(z);
        match self {
            Self::Relu => relu(&z.data, &mut h.data)?,
            Self::Tanh => tanh(&z.data, &mut h.data)?,
        }
        Ok(h)
    }

    fn backward(self, z: &Matrix, d_h: &Matrix) -> nanproof::Result<Matrix> {
        let mut d_z = Matrix::zeros_like(z);
        match self {
            Self::Relu => relu_backward(&z.data, &d_h.data, &mut d_z.data)?,
            Self::Tanh => tanh_backward(&z.data, &d_h.data, &mut d_z.data)?,
        }
        Ok(d_z)
    }
}

fn argmax(x: &[f32]) -> usize {
    (0..x.len()).max_by(|&i, &j| x[i].total_cmp(&x[j])).unwrap_or(0)
}
