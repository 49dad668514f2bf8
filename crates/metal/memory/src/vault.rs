//! Where compartments' private states lie. Each is mapped in its own space only, and a space is loaded only while its compartment
//! is served.

use crate::host::maps_nobody;
use crate::{PRIVATE_OFFSET, PrivateArea, Ram, Space, window};
use address::PAGE_4K;
use contracts::{GuestMemory, Vault};
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU64, Ordering};
use cpu::control::{page_tables, set_page_tables};

/// What lies at the start of a private area.
struct Resident<T> {
    ram: Ram,
    state: T,
}

/// One `T` for each of up to `COMPARTMENTS` compartments, in that compartment's private area.
#[derive(Debug)]
pub struct PrivateVault<T, const COMPARTMENTS: usize> {
    /// Tables of each compartment; 0 where there is none.
    roots: [AtomicU64; COMPARTMENTS],
    states: PhantomData<fn(T) -> T>,
}

/// Why a space was not installed. Nothing of it is used.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum InstallError {
    /// The index is not below the number of compartments, not the space's own, or taken.
    Index,
    /// The private area is smaller than [`PrivateVault::STATE_PAGES`].
    NoRoom,
}

impl<T: Send + Sync, const COMPARTMENTS: usize> PrivateVault<T, COMPARTMENTS> {
    /// Pages of the private area that the state itself takes.
    pub const STATE_PAGES: usize = size_of::<Resident<T>>().div_ceil(PAGE_4K as usize);

    /// A vault with nobody in it.
    pub const fn new() -> Self {
        const {
            assert!(COMPARTMENTS <= crate::WINDOW_COUNT);
            assert!(align_of::<Resident<T>>() <= PAGE_4K as usize);
        }
        Self { roots: [const { AtomicU64::new(0) }; COMPARTMENTS], states: PhantomData }
    }

    fn resident(index: usize) -> *mut Resident<T> {
        // `index` is below `WINDOW_COUNT`, as every use has checked.
        (window(index as u8) + PRIVATE_OFFSET) as *mut Resident<T>
    }

    /// Enters the space, zeroes its RAM and its private area, and puts what `make` makes into it. The area that `make` is lent
    /// hands out pages behind the state.
    pub fn install(
        &self,
        index: usize,
        space: Space,
        make: impl FnOnce(&mut PrivateArea, &Ram) -> T,
    ) -> Result<(), InstallError> {
        let root = self.roots.get(index).ok_or(InstallError::Index)?;
        if usize::from(space.index()) != index || root.load(Ordering::Acquire) != 0 {
            return Err(InstallError::Index);
        }
        let outside = page_tables();
        if !maps_nobody(outside) {
            cpu::fatal(format_args!("a compartment was made while another one was served"));
        }
        let tables = space.root().get();
        // SAFETY: `Space::build` shared slot 0 with it, where code, data and stack are. What lies outside slot 0 is not used until
        // the old tables are back: `make` can reach a space only through what it is lent.
        unsafe { set_page_tables(tables) };
        // SAFETY: The space is loaded.
        let (ram, mut area) = unsafe { space.open() };
        ram.clear();
        let made = match area.pages(Self::STATE_PAGES) {
            Some(_) => {
                let resident = Self::resident(index);
                let state = make(&mut area, &ram);
                // SAFETY: The pages were just handed out, are the first of the area, and are enough and aligned for a `Resident`.
                unsafe {
                    (&raw mut (*resident).state).write(state);
                    (&raw mut (*resident).ram).write(ram);
                }
                Ok(())
            }
            None => Err(InstallError::NoRoom),
        };
        // SAFETY: The tables that were loaded before; nothing of the space is used any more.
        unsafe { set_page_tables(outside) };
        if made.is_ok() {
            root.store(tables, Ordering::Release);
        }
        made
    }
}

impl<T: Send + Sync, const COMPARTMENTS: usize> Default for PrivateVault<T, COMPARTMENTS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Send + Sync, const COMPARTMENTS: usize> Vault<T> for PrivateVault<T, COMPARTMENTS> {
    type Memory = Ram;

    #[inline]
    fn enter<R>(&self, index: usize, serve: impl FnOnce(&T, &Ram) -> R) -> Option<R> {
        let root = self.roots.get(index)?.load(Ordering::Acquire);
        if root == 0 {
            return None;
        }
        let outside = page_tables();
        if !maps_nobody(outside) {
            cpu::fatal(format_args!("a compartment was entered while another one was served"));
        }
        // SAFETY: The space shares slot 0, where code, data and stacks are; outside it nothing is used until the old tables are back.
        unsafe { set_page_tables(root) };
        // SAFETY: `install` put it there before it published the root. It stays for ever; it is only shared, and `T: Sync`.
        let resident = unsafe { &*Self::resident(index) };
        let result = serve(&resident.state, &resident.ram);
        // SAFETY: The tables that were loaded before. The references ended: `R` cannot hold them, as `serve` takes any lifetime.
        unsafe { set_page_tables(outside) };
        Some(result)
    }
}
