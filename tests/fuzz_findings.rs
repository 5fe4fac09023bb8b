//! What fuzzing found, each with its smallest operands.

use nanproof::reference::{self, ulp_error};
use nanproof::{
    Class, CrossEntropy, Error, Index, MatMut, MatRef, Origin, TensorStats, cross_entropy_in_place,
    cross_entropy_with_gradient, elu, l2_norm_backward, lp_norm, matmul_backward, safe_div_backward,
};

/// The gradients multiply by transposes; a report speaks of the operands as they were passed in.
#[test]
fn matmul_backward_reports_the_cell_of_the_callers_operand() -> nanproof::Result<()> {
    let (mut da, mut db) = ([0.0_f32; 2], [0.0_f32; 6]);
    // B is 2 x 3, with an infinity at row 0, column 2; and A is 1 x 2, with one at column 1.
    let b = [0.0, 1.0, f32::INFINITY, 2.0, 3.0, 4.0];
    for (a, b, operand, index) in
        [([1.0, 2.0], b, "b", Index::Cell(0, 2)), ([1.0, f32::INFINITY], [1.0; 6], "a", Index::Cell(0, 1))]
    {
        let (a, b, dc) = (MatRef::new(&a, 1, 2)?, MatRef::new(&b, 2, 3)?, MatRef::new(&[1.0; 3], 1, 3)?);
        let result = matmul_backward(a, b, dc, MatMut::new(&mut da, 1, 2)?, MatMut::new(&mut db, 2, 3)?);
        let Err(Error::NonFinite(report)) = result else { panic!("not reported: {result:?}") };
        assert_eq!((report.operand, report.index, report.class), (operand, index, Class::PosInf));
    }
    Ok(())
}

/// Without an upstream gradient there is none to pass on, whatever the quotient is.
#[test]
fn safe_div_backward_of_zero_is_zero_through_infinities() -> nanproof::Result<()> {
    const INF: f32 = f32::INFINITY;
    let (mut da, mut db) = ([1.0; 4], [1.0; 4]);
    safe_div_backward(&[-INF, INF, INF, 1.0], &[-INF, INF, 2.0, INF], &[-0.0, 0.0, 0.0, 0.0], &mut da, &mut db)?;
    assert_eq!((da, db), ([0.0; 4], [0.0; 4]));
    Ok(())
}

/// No element of the gradient of a norm is larger than the upstream one, so none overflows.
#[test]
fn l2_norm_backward_of_the_largest_number_is_finite() -> nanproof::Result<()> {
    for i in 1..1000 {
        let x = [1.0 + f64::from(i) / 1024.0, 1e-20];
        let mut dx = [0.0; 2];
        l2_norm_backward(&x, -f64::MAX, &mut dx)?;
        assert!(dx[0] <= f64::MAX * (4.0 * f64::EPSILON - 1.0), "{x:?}: {dx:?}");
    }
    Ok(())
}

/// A loss overflows and the mean does not: in place the loss is that of the other forms, not the sum of what overflowed.
#[test]
fn cross_entropy_in_place_has_a_mean_beside_losses_that_overflow() -> nanproof::Result<()> {
    let x = [f32::MAX, -f32::MAX, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    let (options, targets) = (CrossEntropy::default(), [1, 0, 0, 0]);
    let (mut in_place, mut dx) = (x, [0.0; 8]);
    let logits = MatRef::new(&x, 4, 2)?;
    let want = cross_entropy_with_gradient(options, logits, &targets, MatMut::new(&mut dx, 4, 2)?)?;
    assert_eq!(cross_entropy_in_place(options, MatMut::new(&mut in_place, 4, 2)?, &targets)?, want);
    assert_eq!((want.value, in_place), (f32::MAX / 2.0, dx));
    Ok(())
}

/// The error of the exponential may weigh twice as much in the product, whose rounding came on top of it.
#[test]
fn elu_is_within_its_bound_for_any_alpha() -> nanproof::Result<()> {
    let (alpha, x, mut y) = (12.75_f32, [-0.903_177_6], [0.0]);
    elu(alpha, &x, &mut y)?;
    let error = ulp_error(y[0], reference::elu(alpha, x[0]));
    assert!(error <= 1.2, "{error} ULP");
    Ok(())
}

/// The norm overflows, or is that of the only element; the inverse of the order may overflow alone.
#[test]
fn lp_norm_of_a_tiny_order_is_a_number() -> nanproof::Result<()> {
    let Err(Error::NonFinite(report)) = lp_norm(f64::MIN_POSITIVE, &[1.0, 0.5]) else { panic!("it overflows") };
    assert_eq!((report.class, report.origin), (Class::PosInf, Origin::Overflow));
    assert_eq!(lp_norm(5e-324, &[3.0, 0.0])?, 3.0);
    Ok(())
}

/// The power of a ratio below all numbers is 0, however large the order.
#[test]
fn lp_norm_beside_an_element_that_does_not_count() -> nanproof::Result<()> {
    for order in [2.5, 6.0, 1e10, 1e300] {
        assert_eq!(lp_norm(order, &[1e300, 1e-300])?, 1e300);
    }
    Ok(())
}

/// The rounding of the mean may be as large as the deviation.
#[test]
fn statistics_of_elements_next_to_each_other() -> nanproof::Result<()> {
    assert_eq!(TensorStats::of(&[1.0, 1.0 + f64::EPSILON])?.std, f64::EPSILON / 2.0);
    assert_eq!(TensorStats::of(&[0.1; 10_000])?.std, 0.0);
    Ok(())
}
