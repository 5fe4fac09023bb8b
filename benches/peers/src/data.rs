//! Operands: the same random numbers in every run, at the same alignment.

use std::ops::{Deref, DerefMut};

/// A line of the cache. Where an allocator happens to put an array would otherwise decide how many loads cross a line.
const ALIGNMENT: usize = 64;

/// A vector whose first element begins a line of the cache.
pub struct Aligned<T> {
    memory: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Copy> Aligned<T> {
    pub fn new(len: usize, mut element: impl FnMut() -> T) -> Self {
        let zeroth = element();
        let mut memory = vec![zeroth; len + ALIGNMENT / size_of::<T>()];
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        memory[start..start + len].fill_with(element);
        Self { memory, start, len }
    }

    pub fn zeros(len: usize) -> Self
    where
        T: Default,
    {
        Self::new(len, T::default)
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

/// Numbers between -1 and 1.
pub fn uniform<T: Copy + From<f32>>(len: usize, seed: u64) -> Aligned<T> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    Aligned::new(len, || {
        // Marsaglia's xorshift; the upper 24 bits become the fraction.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        T::from((state >> 40) as f32 / (1 << 23) as f32 - 1.0)
    })
}
