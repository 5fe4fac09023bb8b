//! Real data: read, split into a training and a test set, standardised.

use std::fmt;

use clap::ValueEnum;
use nanproof::{l2_norm, safe_div, sum};
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;

use crate::matrix::Matrix;
use crate::random::{Use, random};

/// A dataset of the crate `linfa-datasets`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Source {
    /// 1,599 red wines: 11 measurements, 6 grades of quality
    Wine,
    /// 150 irises: 4 measurements, 3 species
    Iris,
}

/// Features, one sample a row, and the class of each.
#[derive(Debug)]
pub(crate) struct Samples {
    pub(crate) features: Matrix,
    pub(crate) classes: Vec<u32>,
}

/// A dataset, ready to train on.
#[derive(Debug)]
pub(crate) struct Data {
    source: Source,
    pub(crate) classes: usize,
    pub(crate) train: Samples,
    pub(crate) test: Samples,
}

impl Data {
    /// Reads the dataset and holds out a fifth of each class for the test.
    pub(crate) fn load(source: Source, seed: u64) -> nanproof::Result<Self> {
        let dataset = match source {
            Source::Wine => linfa_datasets::winequality(),
            Source::Iris => linfa_datasets::iris(),
        };
        let rows: Vec<Vec<f64>> = dataset.records.rows().into_iter().map(|row| row.to_vec()).collect();
        let (classes, count) = number(&dataset.targets.to_vec());
        let (train, test) = split(&classes, count, &mut random(seed, Use::Split));
        let scale = Scale::of(&rows, &train)?;
        let samples = |chosen: &[usize]| -> nanproof::Result<Samples> {
            let features = scale.apply(&rows, chosen)?;
            Ok(Samples { features, classes: chosen.iter().map(|&i| classes[i]).collect() })
        };
        Ok(Self { source, classes: count, train: samples(&train)?, test: samples(&test)? })
    }

    pub(crate) fn features(&self) -> usize {
        self.train.features.cols
    }

    /// The share of the test set that is of the training set's commonest class.
    pub(crate) fn accuracy_of_commonest_class(&self) -> f64 {
        let commonest = (0..).take(self.classes).max_by_key(|&class| self.train.count(class));
        commonest.map_or(0.0, |class| self.test.count(class) as f64 / self.test.classes.len() as f64)
    }
}

impl Samples {
    fn count(&self, class: u32) -> usize {
        self.classes.iter().filter(|&&c| c == class).count()
    }
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.source {
            Source::Wine => "red wines",
            Source::Iris => "irises",
        };
        let (train, test) = (self.train.classes.len(), self.test.classes.len());
        let (features, classes) = (self.features(), self.classes);
        write!(f, "{name}: {train} to train on, {test} to test on; {features} features, {classes} classes")
    }
}

/// Numbers the labels that occur from 0, in their order; and how many they are.
fn number(labels: &[usize]) -> (Vec<u32>, usize) {
    let mut known = labels.to_vec();
    known.sort_unstable();
    known.dedup();
    let class = |label| known.partition_point(|&known| known < label) as u32;
    (labels.iter().map(|&label| class(label)).collect(), known.len())
}

/// The samples to train on and those to test on: four fifths and one fifth of each class, chosen at random.
fn split(classes: &[u32], count: usize, rng: &mut ChaCha8Rng) -> (Vec<usize>, Vec<usize>) {
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for class in (0..).take(count) {
        let mut members: Vec<usize> = (0..classes.len()).filter(|&i| classes[i] == class).collect();
        members.shuffle(rng);
        let (held_out, rest) = members.split_at((members.len() + 2) / 5);
        test.extend(held_out);
        train.extend(rest);
    }
    (train, test)
}

/// What turns each feature into one with mean 0 and deviation 1 on the training set.
struct Scale {
    mean: Vec<f64>,
    deviation: Vec<f64>,
}

impl Scale {
    fn of(rows: &[Vec<f64>], train: &[usize]) -> nanproof::Result<Self> {
        let column = |feature: usize| train.iter().map(|&i| rows[i][feature]).collect();
        let moments = (0..rows[0].len()).map(|feature| mean_and_deviation(column(feature)));
        let (mean, deviation) = moments.collect::<nanproof::Result<_>>()?;
        Ok(Self { mean, deviation })
    }

    /// The chosen rows, standardised. A feature that never varies becomes 0.
    fn apply(&self, rows: &[Vec<f64>], chosen: &[usize]) -> nanproof::Result<Matrix> {
        let mut scaled = vec![0.0; self.mean.len()];
        let mut data = Vec::new();
        for &i in chosen {
            let centered: Vec<f64> = rows[i].iter().zip(&self.mean).map(|(x, mean)| x - mean).collect();
            safe_div(&centered, &self.deviation, &mut scaled)?;
            data.extend(scaled.iter().map(|&x| x as f32));
        }
        Ok(Matrix { rows: chosen.len(), cols: self.mean.len(), data })
    }
}

fn mean_and_deviation(mut x: Vec<f64>) -> nanproof::Result<(f64, f64)> {
    let n = x.len() as f64;
    let mean = sum(&x)? / n;
    x.iter_mut().for_each(|x| *x -= mean);
    Ok((mean, l2_norm(&x)? / n.sqrt()))
}
