//! A vector in pieces.

use std::ops::{Index, IndexMut};

/// Items of a piece. A whole number of doublings of a vector's first capacity.
const PIECE: usize = 64;

/// A vector that grows a piece at a time: nothing is copied, so neither a long pause nor holes of
/// the sizes that it had before come with growing, and at most one piece is unused.
#[derive(Debug)]
pub(crate) struct Table<T> {
    /// All but the last are full.
    pieces: Vec<Vec<T>>,
}

impl<T> Table<T> {
    pub(crate) fn len(&self) -> usize {
        self.pieces.last().map_or(0, |last| (self.pieces.len() - 1) * PIECE + last.len())
    }

    pub(crate) fn get(&self, at: usize) -> Option<&T> {
        self.pieces.get(at / PIECE)?.get(at % PIECE)
    }

    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.pieces.get_mut(at / PIECE)?.get_mut(at % PIECE)
    }

    pub(crate) fn push(&mut self, item: T) {
        match self.pieces.last_mut() {
            Some(last) if last.len() < PIECE => last.push(item),
            Some(_) => {
                let mut piece = Vec::with_capacity(PIECE);
                piece.push(item);
                self.pieces.push(piece);
            }
            // Many tables stay small.
            None => self.pieces.push(vec![item]),
        }
    }

    /// Makes the table at least `len` items long.
    pub(crate) fn grow_to(&mut self, len: usize, item: impl Fn() -> T) {
        for _ in self.len()..len {
            self.push(item());
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pieces.iter().flatten()
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { pieces: Vec::new() }
    }
}

impl<T> Index<usize> for Table<T> {
    type Output = T;

    fn index(&self, at: usize) -> &T {
        &self.pieces[at / PIECE][at % PIECE]
    }
}

impl<T> IndexMut<usize> for Table<T> {
    fn index_mut(&mut self, at: usize) -> &mut T {
        &mut self.pieces[at / PIECE][at % PIECE]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_a_vector() {
        let mut table = Table::default();
        let mut vector = Vec::new();
        for n in 0..1000 {
            assert_eq!(table.len(), n);
            assert_eq!(table.get(n), None);
            table.push(n);
            vector.push(n);
            assert_eq!(table.get(n / 2), Some(&(n / 2)));
        }
        table[700] = 3;
        vector[700] = 3;
        table.grow_to(900, || 0);
        table.grow_to(1300, || 7);
        vector.resize(1300, 7);
        assert!(table.iter().eq(&vector));
        assert_eq!((table[700], table.get_mut(1300)), (3, None));
    }
}
