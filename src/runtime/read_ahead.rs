//! What waits between the thread that reads and the one that runs epochs, bounded in number and in bytes.
//!
//! ```text
//! reader ─ send: waits for room ─▶ [at most so many items, about so many bytes] ─ recv ─▶ epochs
//! ```

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::host::{Bell, Host, wait_for};

/// The reader's side.
pub struct Ahead<T>(Arc<Room<T>>);

/// The epochs' side. Once it is dropped, nobody waits for room any more.
pub struct Waiting<T>(Arc<Room<T>>);

/// The other side is gone.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed;

/// Why nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nothing {
    /// Nothing is there yet.
    Yet,
    /// Nothing is there, and nobody sends any more.
    AnyMore,
}

struct Room<T> {
    items_max: usize,
    bytes_max: usize,
    queue: Mutex<Queue<T>>,
    changed: Arc<dyn Bell>,
}

struct Queue<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
    is_sending: bool,
    is_taking: bool,
}

/// A queue of at most `items_max` items, which together have at most `bytes_max` bytes, or are one.
pub fn read_ahead<T>(items_max: usize, bytes_max: usize, host: &dyn Host) -> (Ahead<T>, Waiting<T>) {
    let room = Arc::new(Room {
        items_max,
        bytes_max,
        queue: Mutex::new(Queue {
            items: VecDeque::new(),
            bytes: 0,
            is_sending: true,
            is_taking: true,
        }),
        changed: host.bell(),
    });
    (Ahead(Arc::clone(&room)), Waiting(room))
}

impl<T> Ahead<T> {
    /// Waits until there is room for the item, which has so many bytes.
    pub fn send(&self, item: T, bytes: usize) -> Result<(), Closed> {
        let room = &self.0;
        let mut item = Some(item);
        let sent = wait_for(&*room.changed, Duration::MAX, || {
            let mut queue = room.lock();
            match queue.is_taking {
                false => Some(Err(Closed)),
                true if room.has_room(&queue, bytes) => {
                    queue.bytes = queue.bytes.saturating_add(bytes);
                    queue.items.extend(item.take().map(|item| (item, bytes)));
                    Some(Ok(()))
                }
                true => None,
            }
        });
        room.changed.ring();
        sent.unwrap_or(Err(Closed))
    }
}

impl<T> Waiting<T> {
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, Nothing> {
        let found = wait_for(&*self.0.changed, timeout, || match self.take() {
            Err(Nothing::Yet) => None,
            other => Some(other),
        });
        let found = found.unwrap_or(Err(Nothing::Yet));
        if found.is_ok() {
            self.0.changed.ring();
        }
        found
    }

    pub fn try_recv(&self) -> Result<T, Nothing> {
        let found = self.take();
        if found.is_ok() {
            self.0.changed.ring();
        }
        found
    }

    fn take(&self) -> Result<T, Nothing> {
        let mut queue = self.0.lock();
        match queue.items.pop_front() {
            Some((item, bytes)) => {
                queue.bytes = queue.bytes.saturating_sub(bytes);
                Ok(item)
            }
            None if queue.is_sending => Err(Nothing::Yet),
            None => Err(Nothing::AnyMore),
        }
    }
}

impl<T> Drop for Ahead<T> {
    fn drop(&mut self) {
        self.0.lock().is_sending = false;
        self.0.changed.ring();
    }
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        self.0.lock().is_taking = false;
        self.0.changed.ring();
    }
}

impl<T> Room<T> {
    /// An item larger than all the room goes alone.
    fn has_room(&self, queue: &Queue<T>, bytes: usize) -> bool {
        queue.items.len() < self.items_max && (queue.bytes == 0 || queue.bytes.saturating_add(bytes) <= self.bytes_max)
    }

    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{clock::SystemClock, host::SystemHost};

    const LONG: Duration = Duration::from_secs(60);

    fn queue<T>(items_max: usize, bytes_max: usize) -> (Ahead<T>, Waiting<T>) {
        let host = SystemHost(Arc::new(SystemClock::default()));
        read_ahead(items_max, bytes_max, &host)
    }

    #[test]
    fn an_item_waits_while_others_fill_the_bytes_and_one_too_large_goes_alone() {
        let (ahead, waiting) = queue(100, 10);
        let has_room = |bytes| waiting.0.has_room(&waiting.0.lock(), bytes);
        assert_eq!(ahead.send('a', 25), Ok(()), "larger than all the room");
        assert!(!has_room(0), "not even something small beside it");
        assert_eq!(waiting.try_recv(), Ok('a'));
        assert_eq!(ahead.send('b', 6), Ok(()));
        assert!(has_room(4));
        assert!(!has_room(5));
        assert_eq!(waiting.recv_timeout(LONG), Ok('b'));
        assert_eq!(waiting.try_recv(), Err(Nothing::Yet));
    }

    #[test]
    fn all_items_come_in_order_and_never_more_of_them_or_of_their_bytes_wait_than_may() {
        let (ahead, waiting) = queue(2, 7);
        let reader = std::thread::spawn(move || (0..100).try_for_each(|item| ahead.send(item, item % 4)));
        for item in 0..100 {
            {
                let queue = waiting.0.lock();
                assert!(queue.items.len() <= 2 && queue.bytes <= 7);
            }
            assert_eq!(waiting.recv_timeout(LONG), Ok(item));
        }
        assert_eq!(reader.join().unwrap(), Ok(()));
        assert_eq!(waiting.try_recv(), Err(Nothing::AnyMore));
    }

    #[test]
    fn a_reader_that_waits_for_room_is_freed_when_nobody_takes_any_more() {
        let (ahead, waiting) = queue(100, 1);
        assert_eq!(ahead.send('a', 1), Ok(()));
        let reader = std::thread::spawn(move || ahead.send('b', 1));
        drop(waiting);
        assert_eq!(reader.join().unwrap(), Err(Closed));
    }
}
