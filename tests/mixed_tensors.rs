//! Lists of tensors in several storage types: the bits of the operation on the widened tensors, rounded; reports that say
//! which tensor.

#![cfg(feature = "half")]

mod common;

use common::{Kind, assert_same, data, on_every_isa, report};
use half::{bf16, f16};
use nanproof::{
    Class, Clip, Clipping, Error, Index, NormPartial, OnFault, Origin, Result, Storage, TensorMut,
    clip_by_global_norm_mixed, clip_by_global_norm_with,
};

/// The last ones take several pieces.
const LENS: [usize; 5] = [0, 1, 77, 40_000, 70_001];

fn store<A: Storage<Compute = f32>>(x: &[f32]) -> Vec<A> {
    x.iter().map(|&x| A::round(x)).collect()
}

fn widen<A: Storage<Compute = f32>>(x: &[A]) -> Vec<f32> {
    x.iter().map(|&x| x.widen()).collect()
}

/// The norm, if it is a number, the scale, and whether that was needed; and what is in a report but the name of the operation.
type Found = (Option<(Option<f32>, f32, bool)>, Option<(Index, Class, usize, Origin)>);

fn found(result: Result<Clip<f32>>) -> Found {
    let describe = |report: nanproof::NonFinite| (report.index, report.class, report.counts.total(), report.origin);
    match result {
        Ok(clip) => {
            (Some((Some(clip.norm).filter(|norm| !norm.is_nan()), clip.scale, clip.clipped)), clip.fault.map(describe))
        }
        Err(error) => (None, Some(describe(report::<()>(Err(error))))),
    }
}

/// Three tensors, of `A`, `f32` and `B`.
#[derive(Clone)]
struct Mixed<A, B>(Vec<A>, Vec<f32>, Vec<B>);

impl<A: Storage<Compute = f32>, B: Storage<Compute = f32>> Mixed<A, B> {
    fn new(kind: Kind, len: usize) -> Self {
        let [a, b, c] = [1, 2, 3].map(|seed| data::<f32>(seed, kind, len));
        Self(store(&a), b[len / 2..].to_vec(), store(&c))
    }

    fn tensors(&mut self) -> [TensorMut<'_, f32>; 3] {
        [TensorMut::new(&mut self.0), TensorMut::new(&mut self.1), TensorMut::new(&mut self.2)]
    }

    fn widened(&self) -> [Vec<f32>; 3] {
        [widen(&self.0), self.1.clone(), widen(&self.2)]
    }
}

fn compare<A: Storage<Compute = f32>, B: Storage<Compute = f32>>(
    options: Clipping<f32>,
    old: &Mixed<A, B>,
    max_norm: f32,
    context: &str,
) {
    let (mut mixed, mut norms, mut want_norms) = (old.clone(), [f32::NAN; 3], [f32::NAN; 3]);
    let got = clip_by_global_norm_mixed(options, &mut mixed.tensors(), max_norm, Some(&mut norms));
    let [mut a, mut b, mut c] = old.widened();
    let want = clip_by_global_norm_with(options, &mut [&mut a, &mut b, &mut c], max_norm, Some(&mut want_norms));
    let rounded = [widen(&store::<A>(&a)), b, widen(&store::<B>(&c))];
    assert_eq!(found(got), found(want), "{context}");
    assert_same(context, &norms, &want_norms);
    assert_same(context, &mixed.widened().concat(), &rounded.concat());
}

fn widened_first<A: Storage<Compute = f32>, B: Storage<Compute = f32>>() {
    for len in LENS {
        for kind in [Kind::Within(2.0), Kind::Tiny, Kind::Special] {
            let old = Mixed::<A, B>::new(kind, len);
            for (loss_scale, max_norm) in [(1.0, 1.0), (1.0, f32::INFINITY), (1024.0, 0.5), (0.75, 3.0), (1.0, 0.0)] {
                for on_fault in [OnFault::Refuse, OnFault::Skip, OnFault::Zero] {
                    let context = format!("{len} of {kind:?}, {loss_scale}, {max_norm}, {on_fault:?}");
                    compare(Clipping { loss_scale, on_fault }, &old, max_norm, &context);
                }
            }
        }
    }
}

#[test]
fn have_the_bits_of_widening_first() {
    on_every_isa(|_| {
        widened_first::<bf16, f16>();
        widened_first::<f32, bf16>();
    });
}

#[test]
fn partial_norms_are_those_of_the_widened_tensors() {
    on_every_isa(|_| {
        for len in LENS {
            let mut mixed = Mixed::<bf16, f16>::new(Kind::Within(2.0), len);
            let [a, b, c] = mixed.widened();
            let of = |x: &[f32]| NormPartial::of(x).expect("it is available");
            assert_eq!(NormPartial::of_mixed(&mixed.0), Ok(of(&a)), "{len}");
            assert_eq!(NormPartial::of_mixed(&mixed.2), Ok(of(&c)), "{len}");
            let all = of(&a).merge(of(&b)).merge(of(&c));
            let mut want = mixed.clone();
            clip_by_global_norm_mixed(Clipping::default(), &mut want.tensors(), 1.0, None).expect("finite");
            all.clip_mixed(&mut mixed.tensors(), 1.0).expect("finite");
            assert_same(len, &mixed.widened().concat(), &want.widened().concat());
        }
    });
}

#[test]
fn reports_name_the_tensor() {
    let mut mixed = Mixed::<bf16, f16>::new(Kind::Within(2.0), 40_000);
    mixed.2[39_999] = f16::NEG_INFINITY;
    mixed.2[35_000] = f16::NAN;
    let old = mixed.widened().concat();
    let found = report(clip_by_global_norm_mixed(Clipping::default(), &mut mixed.tensors(), 1.0, None));
    assert_eq!((found.operation, found.operand), ("clip_by_global_norm_mixed", "tensors"));
    assert_eq!((found.index, found.class, found.origin), (Index::Tensor(2, 35_000), Class::Nan, Origin::PassedIn));
    assert_eq!((found.counts.nan, found.counts.neg_inf, found.counts.len), (1, 1, 100_000));
    assert_same("nothing is written", &mixed.widened().concat(), &old);
    let partial = NormPartial::of_mixed(&mixed.2).expect("it is available");
    let found = report(partial.clip_mixed(&mut mixed.tensors(), 1.0));
    assert_eq!((found.operation, found.class, found.counts.total()), ("NormPartial::clip_mixed", Class::Nan, 2));
    assert_same("nothing is written", &mixed.widened().concat(), &old);
}

/// A loss scale below 1 makes gradients larger: more than `f16` holds, unless the clipping takes them back.
#[test]
fn what_the_storage_cannot_hold_is_reported() {
    let old = Mixed([1.0].map(bf16::from_f32).to_vec(), vec![1e6], [3.0, -4e4].map(f16::from_f32).to_vec());
    let options = Clipping { loss_scale: 0.5, ..Clipping::default() };
    for max_norm in [f32::INFINITY, 1e7] {
        let mut mixed = old.clone();
        let found = report(clip_by_global_norm_mixed(options, &mut mixed.tensors(), max_norm, None));
        assert_eq!((found.index, found.class, found.origin), (Index::Tensor(2, 1), Class::NegInf, Origin::Overflow));
        assert_eq!((found.counts.total(), found.counts.len), (1, 4));
        assert_same("nothing is written", &mixed.widened().concat(), &old.widened().concat());
        let zero = Clipping { on_fault: OnFault::Zero, ..options };
        let clip = clip_by_global_norm_mixed(zero, &mut mixed.tensors(), max_norm, None).expect("zeros");
        assert!(!clip.clipped && clip.fault.is_some());
        assert_same("zeros", &mixed.widened().concat(), &[2.0, 2e6, 6.0, 0.0]);
    }
    let mut mixed = old.clone();
    assert!(clip_by_global_norm_mixed(options, &mut mixed.tensors(), 2e5, None).expect("taken back").clipped);
    assert!(mixed.2[1].to_f32() < -7.9e3 && mixed.2[1].to_f32() > -8e3);
}

#[test]
fn bad_input_is_refused_in_the_name_of_the_function() {
    let mut mixed = Mixed::<bf16, f16>::new(Kind::Within(2.0), 5);
    let old = mixed.widened().concat();
    let (usual, bad) = (Clipping::default(), Clipping { loss_scale: 0.0, ..Clipping::default() });
    let mut tensors = mixed.tensors();
    let results = [
        clip_by_global_norm_mixed(usual, &mut tensors, -1.0, None),
        clip_by_global_norm_mixed(usual, &mut tensors, f32::NAN, None),
        clip_by_global_norm_mixed(bad, &mut tensors, 1.0, None),
        clip_by_global_norm_mixed(usual, &mut tensors, 1.0, Some(&mut [0.0])),
        NormPartial::default().clip_mixed(&mut tensors, -1.0),
    ];
    drop(tensors);
    for error in results {
        let error = error.expect_err("refused");
        assert!(matches!(error, Error::Argument { .. } | Error::Shape { .. }), "{error}");
        assert!(error.to_string().contains("_mixed: "), "{error}");
    }
    assert_same("nothing is written", &mixed.widened().concat(), &old);
    let nothing = clip_by_global_norm_mixed::<f32>(usual, &mut [], 1.0, None).expect("nothing to do");
    assert_eq!((nothing.norm, nothing.clipped), (0.0, false));
}
