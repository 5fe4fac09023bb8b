//! The page of a [`GradientLog`]: norms, updates and exponents over the steps, drawn as SVG, in one file that needs no
//! other.

use std::fmt::{Display, Write};
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::diagnose::gradient_log::{GradientLog, GradientRecord, LogError, TensorRecords};
use crate::diagnose::judge::GradientFlag;
use crate::diagnose::tensor_stats::TensorStats;

/// Width and height of a plot. The browser scales it by little, so that labels stay as large as they are here: three stand
/// side by side on a wide page, and one fits a narrow page.
const SIZE: (u32, u32) = (420, 270);

/// Points of a line, and columns of a heat map: records between them are taken together.
const COLUMNS: usize = 96;

/// Heat maps that are drawn.
const MAPS: usize = 24;

/// Events that are listed.
const EVENTS: usize = 200;

/// Told apart by people who do not see all colours (after Okabe and Ito).
const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(150, 120, 0),
    RGBColor(86, 180, 233),
    RGBColor(70, 70, 70),
];

const EVENT_COLOR: RGBColor = RGBColor(200, 0, 40);
const TEXT_COLOR: RGBColor = RGBColor(60, 60, 60);
const GRID_COLOR: RGBColor = RGBColor(226, 226, 226);

/// Draws the axes of a chart, whose type is too long to be named.
macro_rules! axes {
    ($chart:ident, $label:expr, $labels:expr) => {
        $chart
            .configure_mesh()
            .bold_line_style(GRID_COLOR)
            .light_line_style(TRANSPARENT)
            .axis_style(TEXT_COLOR)
            .label_style(("sans-serif", 14, &TEXT_COLOR))
            .x_labels(6)
            .y_labels($labels)
            .x_label_formatter(&|x| whole(*x, ""))
            .y_label_formatter(&$label)
            .x_desc("step")
            .draw()?
    };
}

const STYLE: &str = "
body { font: 16px/1.45 system-ui, sans-serif; color: #222; background: #fff; margin: 0 auto; max-width: 1340px; padding: 16px; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; }
h2 { font-size: 1.1rem; margin: 1.6rem 0 .3rem; }
figure { margin: 0; min-width: 0; }
figcaption { font-size: .9rem; color: #444; overflow-wrap: anywhere; }
svg { width: 100%; height: auto; display: block; }
rect { shape-rendering: crispEdges; }
.plots { display: grid; gap: 1rem 1.5rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 400px), 1fr)); }
.key { display: flex; flex-wrap: wrap; gap: .1rem 1rem; padding: 0; margin: .3rem 0; list-style: none; font-size: .9rem; }
.key span { display: inline-block; width: 1.1rem; height: .3rem; margin-right: .4rem; vertical-align: middle; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem .2rem 0; text-align: right; white-space: nowrap; border-bottom: 1px solid #e4e4e4; }
th:first-child, td:first-child, .text th, .text td { text-align: left; }
.text td:last-child { white-space: normal; min-width: 14rem; overflow-wrap: anywhere; }
td.bad { color: #c80028; font-weight: 600; }
";

impl GradientLog {
    /// The log as a page of HTML with plots: norms and updates over the steps, exponents as heat maps, events marked. It
    /// needs no other file, no script and no network.
    ///
    /// In a long run the largest norm of neighbouring records is drawn. The first 24 tensors have a heat map, the first
    /// 200 events a line.
    ///
    /// # Errors
    /// [`LogError::Form`] if a plot cannot be drawn.
    ///
    /// ```
    /// let mut log = nanproof::GradientLog::default();
    /// log.record(1, "layer 1", &[3.0_f32, 4.0])?;
    /// log.record(2, "layer 1", &[0.3_f32, 0.4])?;
    /// assert!(log.html("a run")?.contains("<svg"));
    /// # Ok::<(), nanproof::LogError>(())
    /// ```
    pub fn html(&self, title: &str) -> Result<String, LogError> {
        self.page(title).map_err(|error| LogError::Form(error.to_string()))
    }

    /// Writes [`html`](Self::html) to a file.
    ///
    /// # Errors
    /// [`LogError::Write`] if the file cannot be written; [`LogError::Form`] as above. The log is as it was: try another
    /// path.
    ///
    /// ```
    /// let log = nanproof::GradientLog::default();
    /// let error = log.save_html("a run", "/no/such/directory/log.html").unwrap_err();
    /// assert!(error.to_string().starts_with("gradient log: cannot write /no/such/directory/log.html: "));
    /// ```
    pub fn save_html(&self, title: &str, path: impl AsRef<Path>) -> Result<(), LogError> {
        let path = path.as_ref();
        std::fs::write(path, self.html(title)?).map_err(|error| LogError::Write { path: path.into(), error })
    }

    fn page(&self, title: &str) -> Result<String, Box<dyn std::error::Error>> {
        let (title, steps) = (Escaped(title), self.steps());
        let mut page = String::new();
        write!(page, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">")?;
        write!(page, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">")?;
        write!(page, "<title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>")?;
        let (Some(first), Some(last)) = (steps.first(), steps.last()) else {
            write!(page, "<p>No records.</p>{}</body></html>", self.event_table()?)?;
            return Ok(page);
        };
        write!(
            page,
            "<p>{}, {}, from {first} to {last}, {}</p>",
            counted(self.tensors().len(), "tensor"),
            counted(steps.len(), "step"),
            counted(self.events().len(), "event")
        )?;
        page += &self.key()?;
        page += "<div class=\"plots\">";
        let norm = |record: &GradientRecord| record.gradient.as_ref().map(|stats| stats.norm);
        figure(
            &mut page,
            "norm of the gradient; red lines are events, triangles NaN or infinity",
            self.lines(&steps, norm)?,
        )?;
        if self.tensors().iter().flat_map(|tensor| &tensor.records).any(|record| record.update_ratio.is_some()) {
            let caption = "norm of the update over the norm of the weights";
            figure(&mut page, caption, self.lines(&steps, |record| record.update_ratio)?)?;
        }
        page += "</div><h2>Exponents</h2><p>How many elements have a magnitude from 2<sup>e</sup> to 2<sup>e+1</sup>: the \
                 darker, the more. Dashed lines: below 2<sup>-14</sup> f16 loses digits, below 2<sup>-25</sup> everything, \
                 from 2<sup>16</sup> on it overflows.</p><div class=\"plots\">";
        for tensor in self.tensors().iter().filter(|tensor| tensor.last_gradient().is_some()).take(MAPS) {
            let is_drawable =
                |record: &GradientRecord| record.gradient.as_ref().is_some_and(|stats| stats.largest > 0.0);
            let map = if tensor.records.iter().any(is_drawable) {
                heat_map(tensor)?
            } else {
                "<p>Nothing but 0 and what is not finite.</p>".into()
            };
            figure(&mut page, &tensor.name, map)?;
        }
        write!(page, "</div>{}{}</body></html>", self.tensor_table()?, self.event_table()?)?;
        Ok(page)
    }

    /// Which colour is which tensor.
    fn key(&self) -> Result<String, std::fmt::Error> {
        let mut key = String::from("<ul class=\"key\">");
        for (tensor, RGBColor(r, g, b)) in self.tensors().iter().zip(COLORS.iter().cycle()) {
            write!(key, "<li><span style=\"background:rgb({r},{g},{b})\"></span>{}</li>", Escaped(&tensor.name))?;
        }
        Ok(key + "</ul>")
    }

    /// A value of each tensor over the steps, on a logarithmic scale.
    fn lines(
        &self,
        steps: &[u64],
        value: impl Fn(&GradientRecord) -> Option<f64>,
    ) -> Result<String, Box<dyn std::error::Error>> {
        let drawable = |record: &GradientRecord| value(record).filter(|&x| x > 0.0 && x.is_finite()).map(f64::log10);
        let all = || self.tensors().iter().flat_map(|tensor| &tensor.records).filter_map(drawable);
        let (low, high) = all().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
        let (low, high) = if low <= high { (low.floor(), high.ceil()) } else { (-1.0, 0.0) };
        let high = high.max(low + 1.0);
        draw(|area| {
            let steps = step_range(steps);
            let mut chart = ChartBuilder::on(area)
                .margin(8)
                .margin_right(16)
                .x_label_area_size(36)
                .y_label_area_size(54)
                .build_cartesian_2d(steps.clone(), low..high)?;
            let label = |y: &f64| format!("{:.0e}", 10_f64.powf(*y));
            axes!(chart, label, (high - low).min(10.0) as usize + 1);
            for event in self.events() {
                let at = event.first_step as f64;
                chart.draw_series([PathElement::new([(at, low), (at, high)], EVENT_COLOR.mix(0.45))])?;
            }
            for (tensor, color) in self.tensors().iter().zip(COLORS.iter().cycle()) {
                for points in unbroken(&tensor.records, drawable) {
                    chart.draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?;
                    if let [only] = points.as_slice() {
                        chart.draw_series([Circle::new(*only, 3, color.filled())])?;
                    }
                }
                let is_bad = |record: &&GradientRecord| {
                    record.flags.iter().any(|flag| matches!(flag, GradientFlag::NotFinite(_)))
                };
                let marks =
                    thinned(&tensor.records.iter().filter(is_bad).map(|record| record.step).collect::<Vec<_>>());
                chart.draw_series(
                    marks.into_iter().map(|step| TriangleMarker::new((step as f64, high), 6, EVENT_COLOR.filled())),
                )?;
            }
            Ok(())
        })
    }

    fn tensor_table(&self) -> Result<String, std::fmt::Error> {
        let mut table = String::from(
            "<h2>Last records</h2><div class=\"scroll\"><table><tr><th>tensor<th>elements<th>norm<th>mean<th>deviation\
             <th>largest<th>zeros<th>subnormal<th>NaN<th>infinite<th>f16 over<th>f16 flushed<th>bf16 flushed\
             <th>update<th>dead units</tr>",
        );
        for tensor in self.tensors() {
            let stats = tensor.last_gradient().cloned().unwrap_or_default();
            let TensorStats { len, norm, mean, std, largest, zeros, subnormals, nan, .. } = stats;
            let (infinite, f16, bf16) = (stats.pos_inf + stats.neg_inf, stats.exponents.f16(), stats.exponents.bf16());
            write!(table, "<tr><td>{}<td>{len}<td>{norm:.3e}<td>{mean:.1e}<td>{std:.2e}", Escaped(&tensor.name))?;
            write!(table, "<td>{largest:.2e}<td>{zeros}<td>{subnormals}{}{}", Bad(nan), Bad(infinite))?;
            write!(table, "<td>{}<td>{}<td>{}", f16.overflow, f16.flushed, bf16.flushed)?;
            match tensor.records.iter().rev().find_map(|record| record.update_ratio) {
                Some(ratio) => write!(table, "<td>{ratio:.1e}")?,
                None => write!(table, "<td>")?,
            }
            match tensor.records.iter().rev().find_map(|record| record.dead_units) {
                Some(dead) => write!(table, "<td>{dead}</tr>")?,
                None => write!(table, "<td></tr>")?,
            }
        }
        Ok(table + "</table></div>")
    }

    fn event_table(&self) -> Result<String, std::fmt::Error> {
        let mut table = String::from("<h2>Events</h2>");
        if self.events().is_empty() {
            return Ok(table + "<p>None.</p>");
        }
        table += "<div class=\"scroll\"><table class=\"text\"><tr><th>steps<th>where<th>what</tr>";
        for event in self.events().iter().take(EVENTS) {
            let (first, last) = (event.first_step, event.last_step);
            let steps = if first == last { first.to_string() } else { format!("{first} to {last}") };
            let (tensor, flag) = (Escaped(&event.tensor), event.flag.to_string());
            write!(table, "<tr><td>{steps}<td>{tensor}<td>{}</tr>", Escaped(&flag))?;
        }
        table += "</table></div>";
        match self.events().len().saturating_sub(EVENTS) {
            0 => Ok(table),
            rest => Ok(table + &format!("<p>And {rest} more.</p>")),
        }
    }
}

/// How often each exponent occurs, over the steps.
fn heat_map(tensor: &TensorRecords) -> Result<String, Box<dyn std::error::Error>> {
    let columns: Vec<(u64, &TensorStats)> =
        tensor.records.iter().filter_map(|record| Some((record.step, record.gradient.as_ref()?))).collect();
    let columns = thinned(&columns);
    let exponents = || columns.iter().flat_map(|(_, stats)| stats.exponents.iter());
    let (low, high) = exponents().fold((i32::MAX, i32::MIN), |(low, high), (e, _)| (low.min(e), high.max(e)));
    let (low, high) = if low <= high { (f64::from(low) - 1.0, f64::from(high) + 2.0) } else { (-1.0, 1.0) };
    let most = exponents().map(|(_, count)| count).max().unwrap_or(1) as f64;
    draw(|area| {
        let steps: Vec<u64> = columns.iter().map(|&(step, _)| step).collect();
        let range = step_range(&steps);
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(16)
            .x_label_area_size(36)
            .y_label_area_size(54)
            .build_cartesian_2d(range.clone(), low..high)?;
        axes!(chart, |y: &f64| whole(*y, "2^"), 8);
        for (i, (step, stats)) in columns.iter().enumerate() {
            let right = steps.get(i + 1).map_or(range.end, |&next| next as f64);
            chart.draw_series(stats.exponents.iter().map(|(e, count)| {
                let shade = (count as f64 + 1.0).ln() / (most + 1.0).ln();
                let color = COLORS[0].mix(0.08 + 0.92 * shade);
                Rectangle::new([(*step as f64, f64::from(e)), (right, f64::from(e) + 1.0)], color.filled())
            }))?;
        }
        for limit in [-25.0, -14.0, 16.0].into_iter().filter(|&limit| low < limit && limit < high) {
            let line = [(range.start, limit), (range.end, limit)];
            chart.draw_series(DashedLineSeries::new(line, 6, 4, TEXT_COLOR.stroke_width(1)))?;
        }
        Ok(())
    })
}

fn draw(
    plot: impl FnOnce(&DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), Box<dyn std::error::Error>>,
) -> Result<String, Box<dyn std::error::Error>> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        plot(&area)?;
        area.present().map_err(|error| error.to_string())?;
    }
    Ok(svg)
}

/// From the first step to the last, and as much more as lies between two.
fn step_range(steps: &[u64]) -> std::ops::Range<f64> {
    let (first, last) = (steps.first().map_or(0.0, |&step| step as f64), steps.last().map_or(0.0, |&step| step as f64));
    first..last + ((last - first) / steps.len().saturating_sub(1).max(1) as f64).max(1.0)
}

/// The label of a whole number; none between two of them, where the axis is short.
fn whole(x: f64, prefix: &str) -> String {
    if (x - x.round()).abs() < 1e-6 { format!("{prefix}{}", x.round() as i64) } else { String::new() }
}

/// How many things.
fn counted(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// About [`COLUMNS`] of them, evenly chosen.
fn thinned<T: Clone>(x: &[T]) -> Vec<T> {
    x.iter().step_by(x.len().div_ceil(COLUMNS).max(1)).cloned().collect()
}

/// Points of records without a gap; of each few neighbours the one with the largest value.
fn unbroken(records: &[GradientRecord], value: impl Fn(&GradientRecord) -> Option<f64>) -> Vec<Vec<(f64, f64)>> {
    let group = records.len().div_ceil(COLUMNS).max(1);
    let largest = |records: &[GradientRecord]| {
        let points = records.iter().filter_map(|record| Some((record.step as f64, value(record)?)));
        points.max_by(|a, b| a.1.total_cmp(&b.1))
    };
    let points: Vec<Option<(f64, f64)>> = records.chunks(group).map(largest).collect();
    points
        .split(Option::is_none)
        .filter(|run| !run.is_empty())
        .map(|run| run.iter().copied().flatten().collect())
        .collect()
}

fn figure(page: &mut String, caption: &str, svg: String) -> std::fmt::Result {
    write!(page, "<figure><figcaption>{}</figcaption>{svg}</figure>", Escaped(caption))
}

/// Text that means nothing to HTML.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '&' => f.write_str("&amp;"),
            '"' => f.write_str("&quot;"),
            c => f.write_char(c),
        })
    }
}

/// A count that should be 0, as a cell of a table.
struct Bad(usize);

impl Display for Bad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let class = if self.0 == 0 { "" } else { " class=\"bad\"" };
        write!(f, "<td{class}>{}", self.0)
    }
}
