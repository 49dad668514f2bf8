//! The rules of the house, checked: rows, cfg(feature), unsafe budget.
