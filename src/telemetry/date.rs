//! Dates as log lines write them: RFC 3339 in UTC with microseconds, and the date of the common log format. The
//! calendar is worked out once a second and kept; what the time is, the caller knows.

use super::text::padded_digits;

/// The text of the second that was last asked for. One per core: a busy core works the calendar out once a second.
#[derive(Debug, Clone)]
pub struct DateCache {
    /// Unix seconds that the texts are for.
    second: u64,
    /// `2026-01-31T12:34:56.`, the microseconds of the last call, `Z`, and one byte without meaning.
    rfc3339: [u8; 28],
    /// `31/Jan/2026:12:34:56 +0000`
    clf: [u8; 26],
}

impl Default for DateCache {
    fn default() -> Self {
        let mut cache = Self { second: 0, rfc3339: [0; 28], clf: [0; 26] };
        cache.fill(0);
        cache
    }
}

impl DateCache {
    /// `2026-01-31T12:34:56.123456Z` (RFC 3339 §5.6). `unix_us`: microseconds since 1970, UTC; beyond the year 9999
    /// it is the end of that year.
    #[inline]
    pub fn rfc3339(&mut self, unix_us: u64) -> &[u8; 27] {
        self.seek(unix_us / 1_000_000);
        // Six digits and two more bytes, stored at once.
        let digits = padded_digits((unix_us % 1_000_000) as u32 * 100);
        self.rfc3339[20..].copy_from_slice(&digits);
        self.rfc3339[26] = b'Z';
        self.rfc3339.first_chunk().unwrap_or(&[b' '; 27])
    }

    /// `31/Jan/2026:12:34:56 +0000`, as Apache's and nginx's logs have it. `unix_us` as above.
    #[inline]
    pub fn clf(&mut self, unix_us: u64) -> &[u8; 26] {
        self.seek(unix_us / 1_000_000);
        &self.clf
    }

    #[inline]
    fn seek(&mut self, second: u64) {
        if second != self.second {
            self.fill(second);
        }
    }

    #[cold]
    fn fill(&mut self, second: u64) {
        self.second = second;
        let date = Date::of(second.min(SECONDS_MAX));
        let (year, month, day) = (two(date.year % 100), two(date.month), two(date.day));
        let century = two(date.year / 100);
        let (hour, minute, sec) = (two(date.hour), two(date.minute), two(date.second));
        let name = MONTHS[date.month as usize - 1];
        fill_pattern(
            &mut self.rfc3339,
            b"____-__-__T__:__:__.",
            &[&century, &year, &month, &day, &hour, &minute, &sec],
        );
        fill_pattern(
            &mut self.clf,
            b"__/___/____:__:__:__ +0000",
            &[&day, name, &century, &year, &hour, &minute, &sec],
        );
    }
}

/// 9999-12-31T23:59:59Z: what RFC 3339's four digits can say.
const SECONDS_MAX: u64 = 253_402_300_799;

const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// Writes `pattern`, its underscores replaced by the bytes of `values` in order.
fn fill_pattern(text: &mut [u8], pattern: &[u8], values: &[&[u8]]) {
    let mut values = values.iter().flat_map(|value| value.iter());
    for (byte, shape) in text.iter_mut().zip(pattern) {
        *byte = if *shape == b'_' { *values.next().unwrap_or(shape) } else { *shape };
    }
}

fn two(value: u32) -> [u8; 2] {
    [b'0' + (value / 10 % 10) as u8, b'0' + (value % 10) as u8]
}

/// A moment in the proleptic Gregorian calendar, UTC.
#[derive(Debug, PartialEq, Eq)]
struct Date {
    year: u32,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
}

impl Date {
    /// The date of `unix` seconds since 1970. Counts in years that begin in March, so that the leap day is a
    /// year's last, and in eras of 400 years, which all have the same number of days.
    fn of(unix: u64) -> Self {
        const ERA_DAYS: u64 = 146_097;
        // From 0000-03-01 to 1970-01-01.
        let days = unix / 86_400 + 719_468;
        let (era, day_of_era) = (days / ERA_DAYS, days % ERA_DAYS);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        // Months from March on have 31 30 31 30 31 days, repeating: 153 in five.
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        let second = unix % 86_400;
        Self {
            year: year as u32,
            month: month as u32,
            day: day as u32,
            hour: (second / 3600) as u32,
            minute: (second / 60 % 60) as u32,
            second: (second % 60) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rfc3339(unix_us: u64) -> String {
        String::from_utf8_lossy(DateCache::default().rfc3339(unix_us)).into_owned()
    }

    fn clf(unix_us: u64) -> String {
        String::from_utf8_lossy(DateCache::default().clf(unix_us)).into_owned()
    }

    #[test]
    fn dates_of_note() {
        for (second, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (951_868_800, "2000-03-01T00:00:00.000000Z"),
            (1_709_164_800, "2024-02-29T00:00:00.000000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
            (SECONDS_MAX, "9999-12-31T23:59:59.000000Z"),
            (SECONDS_MAX + 1, "9999-12-31T23:59:59.000000Z"),
        ] {
            assert_eq!(rfc3339(second * 1_000_000), expected);
        }
        assert_eq!(rfc3339(971_211_336_000_007), "2000-10-10T20:55:36.000007Z");
        assert_eq!(clf(971_211_336_999_999), "10/Oct/2000:20:55:36 +0000");
        assert_eq!(rfc3339(u64::MAX).len(), 27);
    }

    /// Every day of 800 years, counted beside a calendar that only knows how long months are.
    #[test]
    fn every_day_in_order() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for at in 0..292_194 {
            let date = Date::of(at * 86_400 + 86_399);
            assert_eq!((date.year, date.month, date.day), (year, month, day));
            assert_eq!((date.hour, date.minute, date.second), (23, 59, 59));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let last = match month {
                2 if leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > last {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }

    #[test]
    fn one_cache_through_changing_seconds() {
        let mut cache = DateCache::default();
        for us in [5_000_000, 5_999_999, 6_000_000, 5_000_000, 0] {
            assert_eq!(String::from_utf8_lossy(cache.rfc3339(us)), rfc3339(us));
            assert_eq!(String::from_utf8_lossy(cache.clf(us)), clf(us));
        }
    }
}
