//! Reports, logs and the check of gradients.

mod common;

use std::iter;

use common::{KINDS, Kind, Rng, data, mat, mat_mut, on_every_isa, report, wide};
use nanproof::{
    Activation, BatchMut, BatchRef, Class, Error, FaultKind, FaultLog, Float, Gradcheck, GradientEvent, GradientFlag,
    GradientLog, GradientRules, Index, LogError, NonFinite, Origin, TensorStats, check_finite, check_operation, dot,
    gradcheck, l2_norm, linear, lp_norm, lp_norm_rows, matmul, matmul_backward, matmul_batched, sum,
};

// Reports.

/// The elements of the largest term.
fn term(report: &NonFinite) -> Vec<(&'static str, Index)> {
    let term = report.largest_term.expect("a sum that overflows has one");
    iter::once(term.left).chain(term.right).map(|factor| (factor.operand, factor.index)).collect()
}

#[test]
fn the_largest_term_of_an_overflow_is_that_of_the_callers_operands() {
    let (mut a, mut b) = (data::<f32>(1, Kind::Within(1.0), 5 * 40), data::<f32>(2, Kind::Within(1.0), 40 * 3));
    (a[2 * 40 + 12], b[12 * 3 + 1]) = (-3e30, 2e20);
    let (a, b, mut c) = (mat(&a, 5, 40), mat(&b, 40, 3), [0.0; 15]);
    let found = report(matmul(a, b, mat_mut(&mut c, 5, 3)));
    assert_eq!((found.index, found.class, found.origin), (Index::Cell(2, 1), Class::NegInf, Origin::Overflow));
    assert_eq!(term(&found), [("a", Index::Cell(2, 12)), ("b", Index::Cell(12, 1))]);
    let text = found.to_string();
    assert!(text.contains("overflow, largest term a[2, 12] * b[12, 1] = -3.0e30 * 2.0e20; 1 of 15"), "{text}");

    // The same operands as transposes of what the caller has: a linear layer's weights, a gradient's factors.
    let found = report(linear(Activation::Identity, a, b.t(), None, mat_mut(&mut c, 5, 3)));
    assert_eq!(term(&found), [("x", Index::Cell(2, 12)), ("w", Index::Cell(1, 12))]);
    let (mut da, mut db) = ([0.0; 15], [0.0; 120]);
    let result = matmul_backward(mat(&[0.5; 15], 5, 3), b.t(), a, mat_mut(&mut da, 5, 3), mat_mut(&mut db, 3, 40));
    let found = report(result);
    assert_eq!((found.operand, found.index), ("da", Index::Cell(2, 1)));
    assert_eq!(term(&found), [("dc", Index::Cell(2, 12)), ("b", Index::Cell(1, 12))]);
}

#[test]
fn the_largest_term_of_a_batch_is_of_the_matrix_that_the_report_names() {
    let mut a = [1.0_f64; 3 * 4];
    a[2 * 4 + 3] = 1e200;
    let b = [1e199_f64; 3 * 4];
    let (a, b, mut c) = (BatchRef::new(&a, 3, 2, 2).unwrap(), BatchRef::new(&b, 3, 2, 2).unwrap(), [0.0; 12]);
    let found = report(matmul_batched(a, b, BatchMut::new(&mut c, 3, 2, 2).unwrap()));
    assert_eq!(found.index, Index::Batch(2, 1, 0));
    assert_eq!(term(&found), [("a", Index::Cell(1, 1)), ("b", Index::Cell(1, 0))]);
    let text = found.to_string();
    assert!(text.contains("largest term a[1, 1] * b[1, 0] = 1.0e200 * 1.0e199"), "{text}");
}

#[test]
fn the_largest_term_of_sums_and_norms() {
    let x = [1.0, -3e38_f32, 2e38, -3.2e38, 0.0, -1e38];
    let found = report(sum(&x));
    assert_eq!(term(&found), [("x", Index::At(3))]);
    assert_eq!(found.to_string(), "sum: sum is -Inf, born here: overflow, largest term x[3] = -3.2e38");
    let found = report(dot(&x, &[1.0, 2.0, -1e3, 1.0, f32::MAX, 1.0]));
    assert_eq!(term(&found), [("a", Index::At(2)), ("b", Index::At(2))]);
    for norm in [report(l2_norm(&x)), report(lp_norm(1.0, &x)), report(lp_norm(3.0, &x))] {
        assert_eq!(term(&norm), [("x", Index::At(3))], "{norm}");
    }
    let found = report(lp_norm_rows(1.0, mat(&[1.0_f32, 2.0, -3e38, 3e38, 3e38, 3.1e38], 3, 2), &mut [0.0; 3]));
    assert_eq!((found.index, term(&found)), (Index::At(1), vec![("x", Index::Cell(1, 0))]));
}

#[test]
fn what_is_passed_in_has_no_largest_term() {
    let found = report(matmul(mat(&[f32::NAN, 1.0], 1, 2), mat(&[1.0, 1.0], 2, 1), mat_mut(&mut [0.0], 1, 1)));
    assert_eq!((found.origin, found.largest_term, found.is_born_here()), (Origin::PassedIn, None, false));
}

#[test]
fn operations_of_ones_own_are_checked_as_the_kernels_are() {
    let (x, y) = ([1.0_f64, f64::INFINITY, -1.0], [1.0, 0.0, f64::NAN]);
    let check = |inputs: &[(&'static str, &[f64])]| check_operation("mine", inputs, &[("z", &[1.0]), ("y", &y)]);
    let found = report(check(&[("w", &[1.0]), ("x", &x)]));
    assert_eq!((found.operation, found.operand, found.index), ("mine", "x", Index::At(1)));
    assert_eq!((found.class, found.origin), (Class::PosInf, Origin::PassedIn));
    let found = report(check(&[("w", &[1.0])]));
    assert_eq!((found.operand, found.index, found.origin), ("y", Index::At(2), Origin::Invalid));
    assert_eq!(check_operation("mine", &[("x", &x)], &[("y", &y[..2])]), Ok(()), "what did not harm is not looked at");
}

// The log of faults.

fn fault(log: &FaultLog, step: u64, layer: &str) {
    assert_eq!(log.note(step, layer, check_finite(&[1.0_f32, f32::NAN])), Ok(None));
}

#[test]
fn the_first_cause_is_told_from_what_passed_it_on() {
    let log = FaultLog::new(4);
    assert_eq!(log.note(0, "a", check_finite(&[1.0_f32])), Ok(Some(())));
    assert!(log.is_empty() && log.first_cause().is_none());
    assert_eq!(log.to_string(), "no faults");
    fault(&log, 3, "a");
    fault(&log, 3, "b");
    fault(&log, 4, "a");
    assert_eq!(log.note(4, "b", sum(&[f32::MAX; 2])), Ok(None));
    fault(&log, 6, "a");
    fault(&log, 7, "a");
    let kinds: Vec<_> = log.faults().iter().map(|fault| (fault.step, fault.kind)).collect();
    use FaultKind::{BornHere, InData, PassedOn};
    assert_eq!(kinds, [(3, InData), (3, PassedOn), (4, PassedOn), (4, BornHere)], "the first four");
    assert_eq!(log.total(), 6);
    let sources: Vec<_> = log
        .sources()
        .into_iter()
        .map(|s| (s.layer, s.operation, s.count, s.causes, s.first_step, s.last_step))
        .collect();
    let expected = [
        ("a".into(), "check_finite", 4, 2, 3, 7), // step 5 was clean, so step 6 is a cause again
        ("b".into(), "check_finite", 1, 0, 3, 3),
        ("b".into(), "sum", 1, 1, 4, 4),
    ];
    assert_eq!(sources, expected);
    assert!(log.to_string().starts_with("first cause, in the data: step 3, a: check_finite: x[1] is NaN"), "{log}");

    let shape = matmul(mat(&[1.0_f32], 1, 1), mat(&[1.0; 2], 2, 1), mat_mut(&mut [0.0], 1, 1));
    assert!(matches!(log.note(8, "a", shape), Err(Error::Shape { .. })), "other errors pass");
    log.clear();
    assert!(log.is_empty() && log.sources().is_empty());
}

#[test]
fn threads_share_the_log_and_a_panic_does_not_harm_it() {
    let log = FaultLog::new(10);
    let panicked = std::thread::scope(|scope| {
        for thread in 0..4 {
            let log = &log;
            scope.spawn(move || (0..100).for_each(|step| fault(log, step, &format!("layer {thread}"))));
        }
        let log = &log;
        scope
            .spawn(move || {
                fault(log, 5, "last");
                panic!("while others write");
            })
            .join()
    });
    assert!(panicked.is_err());
    assert_eq!((log.total(), log.faults().len(), log.sources().len()), (401, 10, 5));
    assert_eq!(log.first_cause().map(|fault| fault.step).filter(|&step| step > 0), None);
}

// Statistics.

/// The same in plain loops, of numbers scaled so that squares are representable.
fn plain_moments<T: Float>(x: &[T]) -> [f64; 3] {
    let finite: Vec<f64> = x.iter().filter(|x| x.is_finite()).map(|&x| wide(x)).collect();
    let scale = finite.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
    if scale == 0.0 {
        return [0.0; 3];
    }
    let scaled: Vec<f64> = finite.iter().map(|x| x / scale).collect();
    let n = scaled.len() as f64;
    let mean = scaled.iter().sum::<f64>() / n;
    let squares = |about: f64| scaled.iter().map(|x| (x - about).powi(2)).sum::<f64>();
    [mean * scale, (squares(mean) / n).sqrt() * scale, squares(0.0).sqrt() * scale]
}

fn statistics<T: Float>() {
    for len in [0, 1, 2, 7, 15, 16, 17, 1000, 4095, 4096, 4097, 9000] {
        for kind in KINDS {
            let x: Vec<T> = data(len as u64, kind, len);
            let stats = TensorStats::of(&x).expect("an instruction set that is there");
            let context = format!("{kind:?}, {len}");
            let count = |is: &dyn Fn(T) -> bool| x.iter().filter(|&&x| is(x)).count();
            assert_eq!(stats.len, len);
            assert_eq!(stats.zeros, count(&|x| x.is_zero()), "{context}");
            assert_eq!(stats.subnormals, count(&|x| x.is_subnormal()), "{context}");
            assert_eq!(stats.nan, count(&|x| x.is_nan()), "{context}");
            assert_eq!(stats.pos_inf, count(&|x| x == T::infinity()), "{context}");
            assert_eq!(stats.neg_inf, count(&|x| x == T::neg_infinity()), "{context}");
            let magnitudes = || x.iter().filter(|x| x.is_finite() && !x.is_zero()).map(|x| wide(x.abs()));
            let smallest = magnitudes().fold(f64::INFINITY, f64::min);
            let largest = magnitudes().fold(0.0, f64::max);
            assert_eq!(stats.largest, largest, "{context}");
            assert_eq!(stats.smallest, if smallest.is_finite() { smallest } else { 0.0 }, "{context}");
            let [mean, std, norm] = plain_moments(&x);
            let close = |got: f64, want: f64, scale: f64| got == want || (got - want).abs() <= 1e-12 * scale;
            assert!(close(stats.mean, mean, largest), "{context}: mean {:e} for {mean:e}", stats.mean);
            assert!(close(stats.std, std, std), "{context}: deviation {:e} for {std:e}", stats.std);
            assert!(close(stats.norm, norm, norm), "{context}: norm {:e} for {norm:e}", stats.norm);
            for (exponent, count) in stats.exponents.iter() {
                let scale = |e: i32| 2_f64.powi(e / 2) * 2_f64.powi(e - e / 2); // of subnormals as well
                let is_in = |x: &f64| scale(exponent) <= *x && (exponent == 1023 || *x < scale(exponent + 1));
                assert_eq!(count, magnitudes().filter(is_in).count() as u64, "{context}: 2^{exponent}");
            }
            let total: u64 = stats.exponents.iter().map(|(_, count)| count).sum();
            assert_eq!(total, magnitudes().count() as u64, "{context}");
        }
    }
}

#[test]
fn statistics_are_those_of_plain_loops() {
    everywhere!(statistics);
}

fn drifting_exponents<T: Float>() {
    // Each exponent 1001 times, so that they leave the range that the chunk before had; zeros and numbers far off between.
    let exponents = || (-120..120_i32).flat_map(|e| [e; 1001]);
    let x: Vec<T> = exponents()
        .enumerate()
        .map(|(i, e)| match i % 4096 {
            17 => T::zero(),
            18 => T::from(2.0).expect("a number").powi(-e),
            _ => T::from(-1.5).expect("a number") * T::from(2.0).expect("a number").powi(e),
        })
        .collect();
    let stats = TensorStats::of(&x).expect("an instruction set that is there");
    let mut counts = std::collections::BTreeMap::new();
    for (i, e) in exponents().enumerate().filter(|(i, _)| i % 4096 != 17) {
        *counts.entry(if i % 4096 == 18 { -e } else { e }).or_insert(0) += 1;
    }
    assert_eq!(stats.exponents.iter().collect::<Vec<_>>(), counts.into_iter().collect::<Vec<_>>());
    assert_eq!(stats.zeros, x.iter().filter(|x| x.is_zero()).count());
}

#[test]
fn exponents_are_counted_where_they_drift() {
    everywhere!(drifting_exponents);
}

#[test]
fn a_mean_that_is_large_beside_the_deviation_does_no_harm() {
    let x: Vec<f64> = (0..10_000).map(|i| 1e8 + f64::from(i % 2)).collect();
    let stats = TensorStats::of(&x).expect("it is there");
    assert!((stats.std - 0.5).abs() < 1e-12, "{:e}", stats.std);
}

#[test]
fn a_norm_out_of_range_does_not_take_the_root_mean_square_with_it() {
    let stats = TensorStats::of(&[f64::MAX, -f64::MAX, f64::MAX]).expect("statistics");
    assert_eq!((stats.norm, stats.largest), (f64::INFINITY, f64::MAX));
    assert!((stats.rms() / f64::MAX - 1.0).abs() < 1e-12, "{:e}", stats.rms());
}

#[test]
fn statistics_have_the_same_bits_everywhere() {
    let x: Vec<f32> = data(3, Kind::Special, 300_000);
    let mut all = Vec::new();
    on_every_isa(|_| all.push(TensorStats::of(&x)));
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
    #[cfg(feature = "rayon")]
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads are to be had");
        assert_eq!(pool.install(|| TensorStats::of(&x)), all[0], "{threads} threads");
    }
}

#[test]
fn narrow_formats_lose_what_is_out_of_their_range() {
    let x = [65536.0_f32, 1.0, 2_f32.powi(-15), 2_f32.powi(-25), 2_f32.powi(-26), 1e-45, f32::MAX];
    let exponents = TensorStats::of(&x).expect("it is there").exponents;
    let (f16, bf16) = (exponents.f16(), exponents.bf16());
    assert_eq!((f16.overflow, f16.subnormal, f16.flushed), (2, 2, 2));
    assert_eq!((bf16.overflow, bf16.subnormal, bf16.flushed), (0, 0, 1));
}

// The log of gradients.

fn log_of(norms: &[f64]) -> GradientLog {
    let mut log = GradientLog::new(GradientRules::default());
    for (step, &norm) in (0..).zip(norms) {
        log.record(step, "layer", &[norm]).expect("in order");
    }
    log
}

fn kinds(log: &GradientLog) -> Vec<(u64, u64, &'static str)> {
    let name = |event: &GradientEvent| match event.flag {
        GradientFlag::NotFinite(_) => "not finite",
        GradientFlag::Exploding { .. } => "exploding",
        GradientFlag::Vanishing { .. } => "vanishing",
        GradientFlag::UpdateTooLarge(_) => "too large",
        GradientFlag::UpdateTooSmall(_) => "too small",
        GradientFlag::DeadUnits(_) => "dead",
        _ => "other",
    };
    log.events().iter().map(|event| (event.first_step, event.last_step, name(event))).collect()
}

#[test]
fn layers_that_explode_and_vanish_are_flagged() {
    assert_eq!(kinds(&log_of(&[1.0, 1.1, 0.9, 1.0, 19.0, 1.0])), []);
    assert_eq!(kinds(&log_of(&[1.0, 1.1, 0.9, 1.0, 25.0, 30.0, 1.0])), [(4, 5, "exploding")]);
    assert_eq!(kinds(&log_of(&[1e5])), [(0, 0, "exploding")], "no matter what was before");
    assert_eq!(kinds(&log_of(&[1.0, 1.0, 1.0, 1.0, 0.9e-4])), [(4, 4, "vanishing")]);
    assert_eq!(kinds(&log_of(&[1.0, 0.0, 1.0])), [(1, 1, "vanishing")]);
    assert_eq!(
        kinds(&log_of(&[1.0, 1.0, f64::NAN, 1.0, 1.0, 50.0])),
        [(2, 2, "not finite"), (5, 5, "exploding")],
        "a NaN spoils nothing"
    );
    let mut log = GradientLog::new(GradientRules::default());
    log.record(0, "first", &[1e-6_f32; 100]).expect("new");
    log.record(0, "last", &[1.0_f32]).expect("new");
    log.record(1, "first", &[1e-6_f32; 100]).expect("next");
    assert_eq!(kinds(&log), [(1, 1, "vanishing")], "beside the other layer");
}

#[test]
fn updates_and_dead_units_are_flagged() {
    let mut log = GradientLog::new(GradientRules { dead_after: 3, ..GradientRules::default() });
    for (step, change) in [1e-3, 0.2, 1e-8, 0.0].into_iter().enumerate() {
        let record =
            log.record_update(step as u64, "w", &[3.0_f64, 4.0], &[3.0, 4.0 + 5.0 * change]).expect("in order");
        let ratio = record.update_ratio.expect("the weights are not 0");
        assert!((ratio - change).abs() <= 1e-6 * change, "{ratio:e} for {change:e}");
    }
    assert_eq!(kinds(&log), [(1, 1, "too large"), (2, 2, "too small")]);
    let record = log.record_update(4, "w", &[0.0_f64; 2], &[1.0; 2]).expect("in order");
    assert_eq!(record.update_ratio, None, "there is no ratio to 0");
    let record = log.record_update(5, "w", &[f64::INFINITY; 2], &[1.0; 2]).expect("in order");
    assert!(record.update_ratio.is_some_and(f64::is_nan));

    let mut log = GradientLog::new(GradientRules { dead_after: 3, ..GradientRules::default() });
    let h = [0.0_f32, 1.0, f32::NAN, -0.0, f32::NAN, 0.0];
    let dead: Vec<_> =
        (0..4).map(|step| log.record_units(step, "h", mat(&h, 2, 3)).expect("in order").dead_units).collect();
    assert_eq!(dead, [Some(0), Some(0), Some(1), Some(1)]);
    log.record_units(4, "h", mat(&[0.0_f32; 6], 2, 3)).expect("in order");
    log.record_units(5, "h", mat(&[0.0_f32; 6], 2, 3)).expect("in order");
    log.record_units(6, "h", mat(&[0.0_f32; 6], 2, 3)).expect("in order");
    assert_eq!(kinds(&log), [(6, 6, "dead")], "all three, which is more than half");

    // A batch without rows, of any number of units.
    let none = nanproof::MatRef::<f32>::new(&[], 0, usize::MAX).expect("empty");
    assert_eq!(GradientLog::default().record_units(0, "none", none).expect("a record").dead_units, None);
}

#[test]
fn what_the_log_refuses_leaves_it_as_it_was() {
    let mut log = log_of(&[1.0, 1.0]);
    let before = log.csv();
    assert!(matches!(log.record(2, "", &[1.0_f32]), Err(LogError::Unnamed)));
    let error = log.record(1, "layer", &[1.0_f32]).unwrap_err();
    assert!(error.to_string().contains("layer is recorded twice at step 1; each tensor needs a name"), "{error}");
    let error = log.record(0, "layer", &[1.0_f32]).unwrap_err();
    assert!(error.to_string().contains("layer is recorded at step 0 after step 1; steps must ascend"), "{error}");
    let error = log.record(2, "layer", &[1.0_f32; 3]).unwrap_err();
    assert!(error.to_string().contains("layer has 3 elements at step 2 and had 1 before"), "{error}");
    assert!(matches!(log.record_update(2, "layer", &[1.0_f32], &[1.0; 2]), Err(LogError::Length { .. })));
    assert_eq!(log.csv(), before);
    log.record(2, "layer", &[1.0_f32]).expect("it goes on");
}

#[test]
fn the_table_and_csv_hold_every_record() {
    let empty = GradientLog::default();
    assert_eq!((empty.to_string().as_str(), empty.csv().lines().count()), ("gradient log: no records", 1));
    let mut log = log_of(&[1.0, 1.0, 1.0, 1.0, 1e3]);
    log.record(2, "odd, \"quoted\"\nname", &[f32::NAN; 3]).expect("new");
    log.record_update(4, "layer", &[1.0_f64], &[1.001]).expect("beside the gradient");
    log.mark(3, "somewhere", "something");
    let csv = log.csv();
    let columns = csv.lines().next().expect("a head").split(',').count();
    for line in csv.lines().filter(|line| line.contains(",layer,")) {
        assert_eq!(line.split(',').count(), columns + usize::from(line.contains("usually")), "{line}");
    }
    assert!(csv.contains("\"odd, \"\"quoted\"\"\nname\",3,0,0,0,0,0,0,0,3,0,0,"), "{csv}");
    let table = log.to_string();
    for text in ["missing at 4 of 5 steps", "step 4, layer: exploding: norm 1.0e3", "step 3, somewhere: something"] {
        assert!(table.contains(text), "{text} is not in\n{table}");
    }
}

#[cfg(feature = "serde")]
#[test]
fn lines_of_json_are_json() {
    let mut log = log_of(&[1.0, f64::NAN]);
    log.record(1, "a \"name\"", &[f32::INFINITY, 2.0]).expect("new");
    let lines = log.json_lines().expect("all is representable");
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["gradient"]["norm"], 1.0);
    assert_eq!((&lines[2]["tensor"], &lines[2]["gradient"]["pos_inf"]), (&"a \"name\"".into(), &1.into()));
    assert_eq!(lines[2]["flags"][0]["NotFinite"], 1);
    let error = check_finite(&[f32::NAN]).unwrap_err();
    let Error::NonFinite(report) = error else { panic!("{error}") };
    let report = serde_json::to_value(*report).expect("a report");
    assert_eq!((&report["index"]["At"], &report["class"]), (&0.into(), &"Nan".into()));
}

#[cfg(feature = "html")]
#[test]
fn the_page_stands_alone() {
    let mut log = log_of(&[1.0, 1.0, 1.0, 1.0, 1e3, f64::NAN, 0.0]);
    log.record(3, "<script>alert('x')</script>", &[1e-30_f32, 1e30]).expect("new");
    log.mark(2, "here", "a & b");
    let page = log.html("a <title>").expect("it can be drawn");
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;") && page.contains("a &amp; b"));
    assert!(page.contains("a &lt;title&gt;"));
    let links = page.replace("http://www.w3.org/2000/svg", "");
    for foreign in ["http", "src=", "url(", "@import", "href"] {
        assert!(!links.contains(foreign), "{foreign}");
    }
    assert_eq!(page.matches("<svg").count(), 3, "the norms and two maps");
    let empty = GradientLog::default().html("nothing").expect("documented");
    assert!(empty.contains("No records."));
    let error = log.save_html("a run", "/no/such/directory/page.html").unwrap_err();
    assert!(matches!(&error, LogError::Write { path, .. } if path.ends_with("page.html")), "{error}");
}

// The check of gradients.

#[test]
fn gradcheck_finds_the_wrong_element() {
    let x: Vec<f64> = data(7, Kind::Within(2.0), 30);
    let f = |x: &[f64]| x.iter().map(|x| x.sin() * x.exp()).sum::<f64>();
    let right: Vec<f64> = x.iter().map(|x| (x.sin() + x.cos()) * x.exp()).collect();
    assert_eq!(gradcheck(Gradcheck::default(), &x, &right, f).map(|agreement| agreement.smooth), Ok(30));
    let mut rng = Rng(8);
    for error in [1e-5, -0.1, 1.0, f64::NAN, f64::INFINITY] {
        let (at, mut wrong) = (rng.below(30), right.clone());
        wrong[at] += error;
        wrong[(at + 1) % 30] += if error.is_finite() { 1e-3 * error } else { 0.0 };
        match gradcheck(Gradcheck::default(), &x, &wrong, f) {
            Err(Error::Gradient(mismatch)) => assert_eq!(mismatch.worst.index, at, "{mismatch}"),
            other => panic!("{error:e}: {other:?}"),
        }
    }
    assert!(matches!(gradcheck(Gradcheck::default(), &x, &right[1..], f), Err(Error::Shape { .. })));
}

#[test]
fn gradcheck_scales_its_steps() {
    for scale in [1e-12, 1e-3, 1.0, 1e6, 1e100, 1e300] {
        let x = [1.5 * scale, -0.3 * scale];
        let f = |x: &[f64]| x.iter().map(|x| (x / scale).tanh()).sum::<f64>();
        let dx = x.map(|x| (1.0 - (x / scale).tanh().powi(2)) / scale);
        let options = Gradcheck { absolute: 1e-9 / scale, ..Gradcheck::default() };
        let agreement = gradcheck(options, &x, &dx, f).unwrap_or_else(|error| panic!("{scale:e}: {error}"));
        assert_eq!(agreement.smooth, 2, "{scale:e}");
        let wrong = [dx[0] * 1.001, dx[1]];
        assert!(gradcheck(options, &x, &wrong, f).is_err(), "{scale:e}");
    }
}

#[test]
fn gradcheck_of_values_near_the_largest_number() {
    let f = |x: &[f64]| 8e304 * (x[0] - 1e6);
    assert_eq!(gradcheck(Gradcheck::default(), &[1e6], &[8e304], f).map(|agreement| agreement.smooth), Ok(1));
    assert!(gradcheck(Gradcheck::default(), &[1e6], &[7.0], f).is_err());
}

#[test]
fn gradcheck_has_a_policy_for_kinks_and_poles() {
    type Function = fn(f64) -> f64;
    let relu: Function = |x| x.max(0.0);
    // The function, where, a gradient, whether it is right.
    let cases: [(Function, f64, f64, bool); 26] = [
        (relu, 0.0, 0.0, true),
        (relu, 0.0, 1.0, true),
        (relu, 0.0, 0.5, true),
        (relu, 0.0, 1.1, false),
        (relu, 0.0, -0.1, false),
        (relu, 0.0, f64::NAN, false),
        (relu, 1e-9, 1.0, true),
        (relu, -1e-9, 0.0, true),
        (relu, 1e-4, 1.0, true),
        (relu, 1e-4, 0.0, false),
        (relu, -1e-4, 1.0, false),
        (f64::abs, 0.0, -1.0, true),
        (f64::abs, 0.0, -1.01, false),
        (f64::sqrt, 0.0, 0.0, true),
        (f64::sqrt, 0.0, f64::INFINITY, true),
        (f64::sqrt, 0.0, f64::NAN, false),
        (f64::sqrt, 1e-6, 500.0, true),
        (f64::sqrt, 1e-6, 400.0, false),
        (f64::cbrt, 0.0, 0.0, true),
        (f64::recip, 1e-6, -1e12, true),
        (f64::recip, 1e-6, -2e12, false),
        (|x| if x == 0.0 { 0.0 } else { 1.0 / x }, 0.0, 0.0, true),
        (f64::ln, 1e-5, 1e5, true),
        (f64::ln, 1e-5, 0.0, false),
        (|_| 7.0, 0.0, 0.0, true),
        (|_| 7.0, 0.0, 1e-3, false),
    ];
    for (i, (f, x, gradient, is_right)) in cases.into_iter().enumerate() {
        let result = gradcheck(Gradcheck::default(), &[x], &[gradient], |x| f(x[0]));
        assert_eq!(result.is_ok(), is_right, "case {i} at {x:e}: {result:?}");
    }
    let kink = gradcheck(Gradcheck::default(), &[0.0], &[0.0], |x| relu(x[0])).expect("a subgradient");
    assert_eq!((kink.smooth, kink.kinks, kink.poles), (0, 1, 0));
    let pole = gradcheck(Gradcheck::default(), &[0.0], &[0.0], |x| x[0].sqrt()).expect("nothing to compare");
    assert_eq!((pole.smooth, pole.kinks, pole.poles), (0, 0, 1));
}

// Events.

#[cfg(feature = "tracing")]
mod events {
    use std::fmt::Debug;
    use std::sync::{Arc, Mutex};

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Level, Metadata, Subscriber};

    use super::*;

    /// Keeps the level and the message of each event, and its step.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<(Level, String, u64)>>>);

    #[derive(Default)]
    struct Fields(String, u64);

    impl Visit for Fields {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            if field.name() == "message" {
                self.0 = format!("{value:?}");
            }
        }

        fn record_u64(&mut self, field: &Field, value: u64) {
            if field.name() == "step" {
                self.1 = value;
            }
        }
    }

    impl Subscriber for Kept {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target().starts_with("nanproof")
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            let mut fields = Fields::default();
            event.record(&mut fields);
            self.0.lock().expect("no panic").push((*event.metadata().level(), fields.0, fields.1));
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn faults_records_and_flags_are_events() {
        let kept = Kept::default();
        tracing::subscriber::with_default(kept.clone(), || {
            fault(&FaultLog::new(0), 7, "layer");
            GradientLog::default().record(8, "layer", &[1e5_f32]).expect("new");
        });
        let expected = [
            (Level::ERROR, "check_finite: x[1] is NaN, passed in; 1 of 2 elements is not finite", 7),
            (Level::DEBUG, "gradient", 8),
            (Level::WARN, "exploding: norm 1.0e5", 8),
        ];
        assert_eq!(*kept.0.lock().expect("no panic"), expected.map(|(level, text, step)| (level, text.into(), step)));
    }
}
