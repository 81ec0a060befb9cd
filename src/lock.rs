//! Locks whose holder may have panicked: what is behind them is never left half-changed, so it is used on.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Locks for whatever is done.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks to read, with others who read.
pub(crate) fn read<T: ?Sized>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Locks to write, alone.
pub(crate) fn write<T: ?Sized>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_while_it_was_held_keeps_nobody_out() {
        let shared = (Mutex::new(1), RwLock::new(2));
        std::thread::scope(|scope| {
            let held = scope.spawn(|| {
                let _held = (lock(&shared.0), write(&shared.1));
                panic!("while it holds both");
            });
            assert!(held.join().is_err());
        });
        assert!(shared.0.is_poisoned() && shared.1.is_poisoned());
        assert_eq!((*lock(&shared.0), *read(&shared.1)), (1, 2));
        *write(&shared.1) = 3;
        assert_eq!(*read(&shared.1), 3);
    }
}
