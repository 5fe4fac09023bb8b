//! What the user sees while it trains: a table, and on a terminal a bar below it.

use indicatif::{ProgressBar, ProgressStyle};

use crate::training::Epoch;

/// About so many epochs get a line.
const LINES: usize = 15;

pub(crate) struct Progress {
    bar: ProgressBar,
    epochs: usize,
}

impl Progress {
    /// Prints the head of the table. The bar hides itself where there is no terminal.
    pub(crate) fn new(epochs: usize) -> Self {
        println!("{:>6} {:>8}   {:^26}   {:>9} {:>9}", "", "", "mean norm of the gradient", "steps", "largest");
        println!(
            "{:>6} {:>8}   {:>8} {:>8} {:>8}   {:>9} {:>9}",
            "epoch", "loss", "layer 1", "layer 2", "layer 3", "clipped", "norm"
        );
        let style = ProgressStyle::with_template("{bar:40} epoch {pos} of {len}, loss {msg}, {eta} left");
        let bar = ProgressBar::new(epochs as u64).with_style(style.expect("the template is well-formed"));
        Self { bar, epochs }
    }

    pub(crate) fn report(&self, epoch: usize, summary: &Epoch) {
        self.bar.set_message(format!("{:.4}", summary.mean_loss()));
        self.bar.inc(1);
        if epoch == 1 || epoch == self.epochs || epoch.is_multiple_of(self.epochs.div_ceil(LINES)) {
            self.bar.suspend(|| print_line(epoch, summary));
        }
    }

    pub(crate) fn finish(self) {
        self.bar.finish_and_clear();
    }
}

fn print_line(epoch: usize, summary: &Epoch) {
    let [norm1, norm2, norm3] = summary.mean_norms();
    let (loss, largest) = (summary.mean_loss(), summary.largest_norm);
    let clipped = format!("{} of {}", summary.clipped, summary.steps);
    println!("{epoch:>6} {loss:>8.4}   {norm1:>8.4} {norm2:>8.4} {norm3:>8.4}   {clipped:>9} {largest:>9.4}");
}
