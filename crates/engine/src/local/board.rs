//! What the workers of a round share: the items, and whether they may take one.

use std::collections::VecDeque;

use crate::chunk::Item;

/// The items that nobody works on, and how fast the run may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Board {
    items: VecDeque<Item>,
    /// Items that somebody works on: they may come back.
    taken: usize,
    /// Ranks of workers that left: those behind move up.
    gone: Vec<u32>,
    /// Workers of a higher rank wait.
    allowed: u32,
    /// Why nothing is to be started now.
    held: Option<String>,
    /// Nothing is to be started any more.
    pub(super) closed: bool,
}

impl Board {
    pub(super) fn new(items: &[Item], allowed: u32) -> Self {
        Self { items: items.iter().copied().collect(), taken: 0, gone: Vec::new(), allowed, held: None, closed: false }
    }

    /// Whether no worker will find anything to do any more.
    pub(super) fn is_over(&self) -> bool {
        self.closed || (self.items.is_empty() && self.taken == 0)
    }

    /// Whether nothing is to be started now.
    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Hands an item to a worker that may take one, with its rank among those that are still there.
    pub(super) fn take(&mut self, rank: u32) -> Option<(Item, u32)> {
        let before = self.gone.iter().filter(|gone| **gone < rank).count();
        let rank = rank.saturating_sub(u32::try_from(before).unwrap_or(u32::MAX)).max(1);
        if self.closed || self.held.is_some() || rank > self.allowed {
            return None;
        }
        let item = self.items.pop_front()?;
        self.taken += 1;
        Some((item, rank))
    }

    /// What the ledger says. Returns whether that is new.
    pub(super) fn is_told(&mut self, allowed: u32, held: Option<String>, closed: bool) -> bool {
        let before = (self.allowed, self.held.is_some(), self.closed);
        (self.allowed, self.held, self.closed) = (allowed, held, self.closed || closed);
        before != (self.allowed, self.held.is_some(), self.closed)
    }

    /// A worker leaves, and what is left of its item is for the next round.
    pub(super) fn leave(&mut self, rank: u32) {
        self.finish();
        self.gone.push(rank);
    }

    /// A worker is done with an item.
    pub(super) fn finish(&mut self) {
        self.taken = self.taken.saturating_sub(1);
    }

    /// A worker has to wait in the middle of an item: whoever may go on takes it.
    pub(super) fn give_back(&mut self, item: Item) {
        self.finish();
        self.items.push_front(item);
    }

    /// How many workers there should be.
    pub(super) fn wanted(&self) -> u32 {
        let items = u32::try_from(self.items.len() + self.taken).unwrap_or(u32::MAX);
        self.allowed.min(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(first: i32) -> Item {
        Item { run: 7, round: 1, first, last: first, stalled: 0 }
    }

    #[test]
    fn an_item_that_was_given_back_is_taken_by_whoever_may_go_on() {
        let mut board = Board::new(&[item(1), item(2)], 2);
        assert_eq!((board.take(1), board.take(2), board.take(1)), (Some((item(1), 1)), Some((item(2), 2)), None));
        // The first has nothing left to take, and must not leave: the second may have to wait.
        board.finish();
        assert!(!board.is_over());
        board.allowed = 1;
        board.give_back(item(2));
        assert_eq!((board.take(2), board.take(1)), (None, Some((item(2), 1))));
        board.finish();
        assert!(board.is_over());
    }

    #[test]
    fn nobody_takes_an_item_while_the_run_is_held_back_or_closed() {
        let mut board = Board::new(&[item(1)], 4);
        board.held = Some("paused".into());
        assert_eq!((board.take(1), board.is_over()), (None, false));
        board.held = None;
        board.closed = true;
        assert_eq!((board.take(1), board.is_over()), (None, true));
    }

    #[test]
    fn those_behind_a_worker_that_left_move_up() {
        let mut board = Board::new(&[item(1), item(2), item(3)], 2);
        assert_eq!((board.take(1), board.take(2)), (Some((item(1), 1)), Some((item(2), 2))));
        assert_eq!(board.take(3), None);
        board.leave(2);
        board.allowed = 1;
        assert_eq!((board.take(3), board.take(1)), (None, Some((item(3), 1))));
        board.give_back(item(3));
        board.leave(1);
        assert_eq!(board.take(3), Some((item(3), 1)));
    }

    #[test]
    fn there_are_no_more_workers_than_items() {
        let mut board = Board::new(&[item(1), item(2), item(3)], 2);
        assert_eq!(board.wanted(), 2);
        board.allowed = 16;
        board.take(1);
        assert_eq!(board.wanted(), 3);
    }
}
