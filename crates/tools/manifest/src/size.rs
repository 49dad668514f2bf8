//! Sizes: a whole number with a binary unit.

/// Reads a size such as `256 MiB` as a number of bytes; the error says what is wrong with it.
pub fn parse(text: &str) -> Result<u64, &'static str> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err("it does not begin with a number");
    }
    let shift = match unit.trim_start() {
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        "" => return Err("it has no unit"),
        "B" | "bytes" => 0,
        "kB" | "KB" | "MB" | "GB" | "TB" | "K" | "M" | "G" | "T" | "k" | "m" | "g" => {
            return Err("the unit could mean thousands");
        }
        fraction if fraction.starts_with(['.', ',']) => return Err("it has a fraction"),
        _ => return Err("the unit is unknown"),
    };
    let number: u64 = number.parse().map_err(|_| "it is too large")?;
    number.checked_mul(1 << shift).ok_or("it is too large")
}

/// A number of bytes with the largest unit in which it is whole.
pub fn show(bytes: u64) -> String {
    let (shift, unit) = match bytes.trailing_zeros() {
        _ if bytes == 0 => (0, "bytes"),
        30.. => (30, "GiB"),
        20.. => (20, "MiB"),
        10.. => (10, "KiB"),
        _ => (0, "bytes"),
    };
    format!("{} {unit}", bytes >> shift)
}
