//! What waits between the thread that reads and the one that runs epochs, bounded in number and in bytes.
//!
//! ```text
//! reader ─ send: waits for room ─▶ [at most so many items, about so many bytes] ─ recv ─▶ epochs
//! ```

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel},
    },
    time::Duration,
};

/// The reader's side.
pub struct Ahead<T> {
    sender: SyncSender<(T, usize)>,
    room: Arc<Room>,
}

/// The epochs' side. Once it is dropped, nobody waits for room any more.
pub struct Waiting<T> {
    receiver: Receiver<(T, usize)>,
    room: Arc<Room>,
}

/// The other side is gone.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed;

struct Room {
    bytes_max: usize,
    /// Bytes of the items that wait; `None` once nobody will take them.
    taken: Mutex<Option<usize>>,
    freed: Condvar,
}

/// A queue of at most `items_max` items, which together have at most `bytes_max` bytes, or are one.
pub fn read_ahead<T>(items_max: usize, bytes_max: usize) -> (Ahead<T>, Waiting<T>) {
    let (sender, receiver) = sync_channel(items_max);
    let room = Arc::new(Room {
        bytes_max,
        taken: Mutex::new(Some(0)),
        freed: Condvar::new(),
    });
    let ahead = Ahead {
        sender,
        room: Arc::clone(&room),
    };
    (ahead, Waiting { receiver, room })
}

impl<T> Ahead<T> {
    /// Waits until there is room for the item, which has so many bytes.
    pub fn send(&self, item: T, bytes: usize) -> Result<(), Closed> {
        self.room.take(bytes)?;
        self.sender.send((item, bytes)).map_err(|_| Closed)
    }
}

impl<T> Waiting<T> {
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        let (item, bytes) = self.receiver.recv_timeout(timeout)?;
        self.room.give(bytes);
        Ok(item)
    }

    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        let (item, bytes) = self.receiver.try_recv()?;
        self.room.give(bytes);
        Ok(item)
    }
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        *self.room.lock() = None;
        self.room.freed.notify_all();
    }
}

impl Room {
    fn take(&self, bytes: usize) -> Result<(), Closed> {
        let is_full = |taken: &mut Option<usize>| taken.is_some_and(|taken| !self.has_room(taken, bytes));
        let mut taken = self
            .freed
            .wait_while(self.lock(), is_full)
            .expect("nobody panics while holding it");
        *taken = Some(taken.ok_or(Closed)?.saturating_add(bytes));
        Ok(())
    }

    /// An item larger than all the room goes alone.
    fn has_room(&self, taken: usize, bytes: usize) -> bool {
        taken == 0 || taken.saturating_add(bytes) <= self.bytes_max
    }

    fn give(&self, bytes: usize) {
        let mut taken = self.lock();
        *taken = taken.map(|taken| taken.saturating_sub(bytes));
        self.freed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Option<usize>> {
        self.taken.lock().expect("nobody panics while holding it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn an_item_waits_while_others_fill_the_bytes_and_one_too_large_goes_alone() {
        let (ahead, waiting) = read_ahead(100, 10);
        assert_eq!(ahead.send('a', 25), Ok(()), "larger than all the room");
        assert!(!ahead.room.has_room(25, 0), "not even something small beside it");
        assert_eq!(waiting.try_recv(), Ok('a'));
        assert_eq!(ahead.send('b', 6), Ok(()));
        assert!(ahead.room.has_room(6, 4));
        assert!(!ahead.room.has_room(6, 5));
        assert_eq!(waiting.recv_timeout(LONG), Ok('b'));
        assert_eq!(waiting.try_recv(), Err(TryRecvError::Empty));
    }

    #[test]
    fn all_items_come_in_order_and_never_more_bytes_wait_than_may() {
        let (ahead, waiting) = read_ahead(100, 7);
        let reader = std::thread::spawn(move || (0..100).try_for_each(|item| ahead.send(item, 3)));
        for item in 0..100 {
            assert!(waiting.room.lock().is_some_and(|taken| taken <= 7));
            assert_eq!(waiting.recv_timeout(LONG), Ok(item));
        }
        assert_eq!(reader.join().unwrap(), Ok(()));
        assert_eq!(waiting.try_recv(), Err(TryRecvError::Disconnected));
    }

    #[test]
    fn a_reader_that_waits_for_room_is_freed_when_nobody_takes_any_more() {
        let (ahead, waiting) = read_ahead(100, 1);
        assert_eq!(ahead.send('a', 1), Ok(()));
        let reader = std::thread::spawn(move || ahead.send('b', 1));
        drop(waiting);
        assert_eq!(reader.join().unwrap(), Err(Closed));
    }
}
