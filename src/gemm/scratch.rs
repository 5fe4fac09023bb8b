//! The memory that products need beside their operands. With feature `std` each thread keeps its own from call to call:
//! it is never larger than the parts of the loops above, 1 MiB in all for each element type, and the lists that are lent,
//! 4 MiB.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::LINE;

/// Packed parts of A and B, and lists to lend.
#[derive(Debug)]
pub struct Scratch<T> {
    left: Vec<T>,
    right: Vec<T>,
    lists: [Vec<T>; 4],
}

/// Runs `f` with lists that it may fill: their memory is kept for the next time.
pub(crate) fn lend_lists<T: HasScratch, R>(f: impl FnOnce(&mut [Vec<T>; 4]) -> R) -> R {
    let mut lists = take_lists();
    let result = f(&mut lists);
    keep_lists(lists);
    result
}

/// Lists that may be filled, until they are given back; the scratch is there for products meanwhile.
pub(crate) fn take_lists<T: HasScratch>() -> [Vec<T>; 4] {
    let mut scratch = T::take_scratch();
    let lists = core::mem::take(&mut scratch.lists);
    T::keep_scratch(scratch);
    lists
}

/// Gives them back: their memory is kept for the next time.
pub(crate) fn keep_lists<T: HasScratch>(lists: [Vec<T>; 4]) {
    let mut scratch = T::take_scratch();
    scratch.lists = lists;
    T::keep_scratch(scratch);
}

impl<T> Default for Scratch<T> {
    fn default() -> Self {
        Self { left: Vec::new(), right: Vec::new(), lists: Default::default() }
    }
}

impl<T: Copy + num_traits::Zero> Scratch<T> {
    /// Room for `left` and `right` elements.
    pub(super) fn parts(&mut self, left: usize, right: usize) -> [&mut [T]; 2] {
        [aligned(&mut self.left, left), aligned(&mut self.right, right)]
    }
}

/// The first `len` elements from the first cache line on: a block that lies in one is loaded faster than one that lies in
/// two.
fn aligned<T: Copy + num_traits::Zero>(data: &mut Vec<T>, len: usize) -> &mut [T] {
    let most = len + LINE / size_of::<T>();
    if len > 0 && data.len() < most {
        data.resize(most, T::zero());
    }
    let start = data.as_ptr().align_offset(LINE).min(data.len() - len.min(data.len()));
    &mut data[start..start + len]
}

/// An element type with scratch.
pub trait HasScratch: Sized {
    /// This thread's scratch, until it is given back; meanwhile the thread has another.
    fn take_scratch() -> Box<Scratch<Self>>;
    /// Gives it back.
    fn keep_scratch(scratch: Box<Scratch<Self>>);
}

macro_rules! has_scratch {
    ($($float:ident $name:ident),*) => {
        $(
            #[cfg(feature = "std")]
            std::thread_local! {
                static $name: core::cell::Cell<Option<Box<Scratch<$float>>>> = const { core::cell::Cell::new(None) };
            }

            impl HasScratch for $float {
                #[cfg(feature = "std")]
                fn take_scratch() -> Box<Scratch<Self>> {
                    $name.take().unwrap_or_default()
                }
                #[cfg(feature = "std")]
                fn keep_scratch(scratch: Box<Scratch<Self>>) {
                    $name.set(Some(scratch));
                }

                #[cfg(not(feature = "std"))]
                fn take_scratch() -> Box<Scratch<Self>> {
                    Box::default()
                }
                #[cfg(not(feature = "std"))]
                fn keep_scratch(_: Box<Scratch<Self>>) {}
            }
        )*
    };
}

has_scratch!(f32 SCRATCH_F32, f64 SCRATCH_F64);
