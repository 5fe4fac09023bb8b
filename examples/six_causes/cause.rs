//! The causes, and the recipes that provoke and cure them.

use clap::ValueEnum;

use crate::optimizer::Method;

/// A cause of NaN in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cause {
    /// Gradients that grow from step to step
    Exploding,
    /// Weights that are too large at the start
    Initialisation,
    /// `exp` of a large number
    FloatingPoint,
    /// An activation at its extremes
    Activation,
    /// A learning rate that is too large
    HyperParameters,
    /// A division by zero
    Division,
}

/// How a network is trained: what the causes change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipe {
    pub(crate) input: Input,
    /// Weights are drawn with variance 1, whatever the width of the layer.
    pub(crate) unit_weights: bool,
    pub(crate) hidden: Hidden,
    pub(crate) loss: Loss,
    pub(crate) optimizer: Method,
    pub(crate) learning_rate: f32,
    pub(crate) clip: Option<f32>,
}

/// What becomes of the features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// They are standardised over the training set.
    Standardised,
    /// They are a hundred times as large.
    Hundredfold,
    /// They have one more that is rarely not 0, and are standardised over the batch by the textbook.
    BatchTextbook,
    /// The same, with `safe_div`.
    BatchSafe,
}

/// The function of the hidden layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hidden {
    Relu,
    TextbookTanh,
    Tanh,
}

/// What is minimised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Loss {
    /// The cross-entropy, as softmax and logarithm by the textbook; the largest logit may be subtracted first.
    Textbook { temperature: f32, shifted: bool },
    /// The cross-entropy of `nanproof`.
    CrossEntropy { temperature: f32 },
    /// The squares of the distances from 1 for the class and 0 for the others, summed over the batch.
    Squares,
}

/// What works.
const SOUND: Recipe = Recipe {
    input: Input::Standardised,
    unit_weights: false,
    hidden: Hidden::Relu,
    loss: Loss::CrossEntropy { temperature: 1.0 },
    optimizer: Method::Adamw,
    learning_rate: 0.001,
    clip: Some(2.0),
};

impl Cause {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Exploding => "exploding",
            Self::Initialisation => "initialisation",
            Self::FloatingPoint => "floating-point",
            Self::Activation => "activation",
            Self::HyperParameters => "hyper-parameters",
            Self::Division => "division",
        }
    }

    pub(crate) fn provoke(self) -> Recipe {
        let textbook = Loss::Textbook { temperature: 1.0, shifted: false };
        match self {
            Self::Exploding => {
                Recipe { loss: Loss::Squares, optimizer: Method::Sgd, learning_rate: 0.02, clip: None, ..SOUND }
            }
            Self::Initialisation => Recipe { unit_weights: true, loss: textbook, ..SOUND },
            Self::FloatingPoint => Recipe { loss: Loss::Textbook { temperature: 0.02, shifted: false }, ..SOUND },
            Self::Activation => Recipe { input: Input::Hundredfold, hidden: Hidden::TextbookTanh, ..SOUND },
            Self::HyperParameters => {
                Recipe { loss: Loss::Textbook { temperature: 1.0, shifted: true }, learning_rate: 1.0, ..SOUND }
            }
            Self::Division => Recipe { input: Input::BatchTextbook, ..SOUND },
        }
    }

    /// The same, but for the remedy.
    pub(crate) fn cure(self) -> Recipe {
        let provoked = self.provoke();
        match self {
            Self::Exploding => Recipe { clip: Some(2.0), ..provoked },
            Self::Initialisation => Recipe { unit_weights: false, ..provoked },
            Self::FloatingPoint => Recipe { loss: Loss::CrossEntropy { temperature: 0.02 }, ..provoked },
            Self::Activation => Recipe { hidden: Hidden::Tanh, ..provoked },
            Self::HyperParameters => Recipe { learning_rate: 0.001, ..provoked },
            Self::Division => Recipe { input: Input::BatchSafe, ..provoked },
        }
    }

    pub(crate) fn story(self) -> &'static str {
        match self {
            Self::Exploding => "squared errors summed over the batch, momentum, and nothing that bounds the gradient",
            Self::Initialisation => "weights of variance 1 in layers of 11, 128 and 64 inputs",
            Self::FloatingPoint => "softmax as exp(x) / sum exp(x), of logits at temperature 0.02",
            Self::Activation => "tanh as (e^x - e^-x) / (e^x + e^-x), of features in the wrong unit",
            Self::HyperParameters => "a learning rate of 1 where 0.001 is right, and ln(softmax) that meets a 0",
            Self::Division => "(x - mean) / deviation over a batch in which a feature is constant",
        }
    }

    pub(crate) fn remedy(self) -> &'static str {
        match self {
            Self::Exploding => "clip_by_global_norm at 2",
            Self::Initialisation => "weights from -b to b, with b = sqrt(6 / inputs) (He)",
            Self::FloatingPoint => "cross_entropy_with_gradient",
            Self::Activation => "tanh and tanh_backward",
            Self::HyperParameters => "the learning rate that keeps updates near a thousandth of the weights",
            Self::Division => "safe_div: what does not vary becomes 0",
        }
    }
}
