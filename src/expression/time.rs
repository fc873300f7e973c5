//! Times and durations in expressions, as CEL has them. The `cel` crate's own bring the time zones of the world into the program,
//! for 3 MB of memory; here they are read from the system's files, those that are asked for, at load.

use std::cmp::Ordering;

use cel::{
    DeclarationError, Env, ExecutionError,
    common::{
        traits::{Adder, Comparer, Subtractor},
        types::{CelInt, DYN_TYPE, INT_TYPE, Type},
        value::{CowVal, StaticVal, Val},
    },
};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

const MOMENT: Type = Type::new_unspecified_type("google.protobuf.Timestamp");
const SPAN: Type = Type::new_unspecified_type("google.protobuf.Duration");

static MOMENT_TYPE: Type = MOMENT;
static SPAN_TYPE: Type = SPAN;

/// A time, in µs since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment(pub(super) i64);

/// A duration, in µs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span(pub(super) i64);

/// A time zone.
#[derive(Debug, Clone)]
pub(super) struct Zone(TimeZone);

impl Moment {
    /// Reads a time as RFC 3339 writes it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        text.parse::<Timestamp>().ok().map(|time| Self(time.as_microsecond()))
    }

    /// What calendar and clock say in a zone; without one, in UTC.
    fn civil(self, zone: Option<&Zone>) -> Result<DateTime, ExecutionError> {
        let time = Timestamp::from_microsecond(self.0).map_err(|_| too_large())?;
        let offset = zone.map_or(jiff::tz::Offset::UTC, |Zone(zone)| zone.to_offset(time));
        Ok(offset.to_datetime(time))
    }
}

impl Span {
    /// Reads a duration: `1h30m`, `-1.5s`; units are h, m, s, ms, us and ns.
    pub(super) fn parse(text: &str) -> Option<Self> {
        const UNITS: [(&str, f64); 6] =
            [("h", 3.6e9), ("ms", 1e3), ("m", 6e7), ("us", 1.0), ("ns", 1e-3), ("s", 1e6)];
        let (sign, mut rest) = text.strip_prefix('-').map_or((1.0, text), |rest| (-1.0, rest));
        let mut sum = 0.0;
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (number, behind) = rest.split_at(end);
            let (unit, us) = UNITS.into_iter().find(|(unit, _)| behind.starts_with(unit))?;
            sum += number.parse::<f64>().ok()? * us;
            rest = &behind[unit.len()..];
        }
        // 10,000 years are enough, and leave room for sums.
        (!text.is_empty() && sum < 3.2e17).then_some(Self((sign * sum) as i64))
    }
}

impl Zone {
    /// A zone by its name in the IANA database, which is the system's, or by its distance from UTC: `Europe/Berlin`, `+02:00`.
    pub(super) fn find(name: &str) -> Option<Self> {
        if name == "UTC" {
            return Some(Self(TimeZone::UTC));
        }
        if let Some(offset) = offset(name) {
            return Some(Self(TimeZone::fixed(offset)));
        }
        TimeZone::get(name).ok().map(Self)
    }
}

/// `+hh:mm` or `-hh:mm`.
fn offset(text: &str) -> Option<jiff::tz::Offset> {
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = digits.split_once(':')?;
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    let is_sound = digits.len() == 5 && (0..24).contains(&hours) && (0..60).contains(&minutes);
    is_sound.then(|| jiff::tz::Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()).flatten()
}

fn too_large() -> ExecutionError {
    ExecutionError::function_error(super::scene::SCENE, "a time is too far away")
}

fn unfit(of: &Type) -> ExecutionError {
    ExecutionError::UnexpectedType { got: of.name().to_owned(), want: "a time or a duration".to_owned() }
}

fn owned<'b, 'v>(value: impl Val + 'v) -> CowVal<'b, 'v> {
    CowVal::owned(value)
}

/// What both kinds have in common.
macro_rules! value {
    ($type:ident, $of:ident) => {
        impl Val for $type {
            fn get_type(&self) -> &Type {
                &$of
            }

            fn cel_type() -> &'static Type {
                &$of
            }

            fn as_adder<'b, 'v>(&'b self) -> Option<&'b (dyn Adder + 'v)>
            where
                Self: 'v,
            {
                Some(self)
            }

            fn as_subtractor<'b, 'v>(&'b self) -> Option<&'b (dyn Subtractor + 'v)>
            where
                Self: 'v,
            {
                Some(self)
            }

            fn as_comparer(&self) -> Option<&dyn Comparer> {
                Some(self)
            }

            fn equals(&self, other: &dyn Val) -> bool {
                other.downcast_ref::<Self>() == Some(self)
            }

            fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
                Box::new(*self)
            }

            fn as_any(&self) -> Option<&dyn std::any::Any> {
                Some(self)
            }
        }

        impl StaticVal for $type {}

        impl Comparer for $type {
            fn compare(&self, other: &dyn Val) -> Result<Ordering, ExecutionError> {
                let other = other.downcast_ref::<Self>().ok_or_else(|| unfit(other.get_type()))?;
                Ok(self.0.cmp(&other.0))
            }
        }
    };
}

value!(Moment, MOMENT_TYPE);
value!(Span, SPAN_TYPE);

impl Adder for Moment {
    fn add<'b, 'v>(&'b self, other: &(dyn Val + 'v)) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let Some(Span(span)) = other.downcast_ref::<Span>() else { return Err(unfit(other.get_type())) };
        self.0.checked_add(*span).map(|sum| owned(Self(sum))).ok_or_else(too_large)
    }
}

impl Adder for Span {
    fn add<'b, 'v>(&'b self, other: &(dyn Val + 'v)) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let sum = |other: i64| self.0.checked_add(other).ok_or_else(too_large);
        if let Some(Moment(moment)) = other.downcast_ref::<Moment>() {
            return sum(*moment).map(|sum| owned(Moment(sum)));
        }
        let Some(Self(span)) = other.downcast_ref::<Self>() else { return Err(unfit(other.get_type())) };
        sum(*span).map(|sum| owned(Self(sum)))
    }
}

impl Subtractor for Moment {
    fn sub<'b, 'v>(&'b self, other: &(dyn Val + 'v)) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let rest = |other: i64| self.0.checked_sub(other).ok_or_else(too_large);
        if let Some(Self(moment)) = other.downcast_ref::<Self>() {
            return rest(*moment).map(|rest| owned(Span(rest)));
        }
        let Some(Span(span)) = other.downcast_ref::<Span>() else { return Err(unfit(other.get_type())) };
        rest(*span).map(|rest| owned(Self(rest)))
    }
}

impl Subtractor for Span {
    fn sub<'b, 'v>(&'b self, other: &(dyn Val + 'v)) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let Some(Self(span)) = other.downcast_ref::<Self>() else { return Err(unfit(other.get_type())) };
        self.0.checked_sub(*span).map(|rest| owned(Self(rest))).ok_or_else(too_large)
    }
}

super::opaque!(Zone);

type Answer<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

fn number<'b, 'v>(number: i64) -> CowVal<'b, 'v> {
    owned(CelInt::from(number))
}

/// What a moment is asked in, and whether a zone is said.
fn civil(arguments: &[CowVal<'_, '_>]) -> Result<DateTime, ExecutionError> {
    let moment = arguments.first().and_then(|moment| moment.downcast_ref::<Moment>());
    let zone = arguments.get(1).map(|zone| zone.downcast_ref::<Zone>().ok_or_else(too_large)).transpose()?;
    moment.ok_or_else(ExecutionError::missing_argument_or_target)?.civil(zone)
}

/// A part of the calendar or the clock.
macro_rules! part {
    ($name:ident, $civil:ident => $part:expr) => {
        fn $name<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
            let $civil = civil(&arguments)?;
            Ok(number(i64::from($part)))
        }
    };
}

part!(full_year, civil => civil.year());
// From 0, as in the languages that CEL comes from; but for `getDate`.
part!(month, civil => civil.month() - 1);
part!(day_of_year, civil => civil.day_of_year() - 1);
part!(day_of_month, civil => civil.day() - 1);
part!(day, civil => civil.day());
part!(day_of_week, civil => civil.weekday().to_sunday_zero_offset());
part!(hours, civil => civil.hour());
part!(minutes, civil => civil.minute());
part!(seconds, civil => civil.second());
part!(milliseconds, civil => civil.millisecond());

fn span(arguments: &[CowVal<'_, '_>]) -> Result<i64, ExecutionError> {
    let span = arguments.first().and_then(|span| span.downcast_ref::<Span>());
    span.map(|span| span.0).ok_or_else(ExecutionError::missing_argument_or_target)
}

/// All of a duration, in a unit.
macro_rules! whole {
    ($name:ident, $us:expr) => {
        fn $name<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
            span(&arguments).map(|span| number(span / $us))
        }
    };
}

whole!(span_hours, 3_600_000_000);
whole!(span_minutes, 60_000_000);
whole!(span_seconds, 1_000_000);
whole!(span_milliseconds, 1000);

fn to_int<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let moment = arguments.first().and_then(|moment| moment.downcast_ref::<Moment>());
    moment
        .map(|moment| number(moment.0.div_euclid(1_000_000)))
        .ok_or_else(ExecutionError::missing_argument_or_target)
}

fn of_int<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let seconds = arguments.first().and_then(|seconds| seconds.downcast_ref::<CelInt>());
    let seconds = *seconds.ok_or_else(ExecutionError::missing_argument_or_target)?.inner();
    // What no calendar here has is refused when it is asked for its parts.
    seconds.checked_mul(1_000_000).map(|us| owned(Moment(us))).ok_or_else(too_large)
}

/// Declares the functions.
pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_overload("int", "timestamp_to_int", vec![MOMENT], to_int)?;
    env.add_overload("timestamp", "int_to_timestamp", vec![INT_TYPE], of_int)?;
    for (name, part) in PARTS {
        env.add_member_overload(name, &format!("{name}_utc"), MOMENT, vec![], part)?;
        env.add_member_overload(name, &format!("{name}_in"), MOMENT, vec![DYN_TYPE], part)?;
    }
    for (name, whole) in WHOLES {
        env.add_member_overload(name, &format!("{name}_of_duration"), SPAN, vec![], whole)?;
    }
    Ok(())
}

type Function = for<'b, 'v> fn(Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v>;

/// What a time can be asked, each in a zone or in UTC.
pub(super) const PARTS: [(&str, Function); 10] = [
    ("getFullYear", full_year),
    ("getMonth", month),
    ("getDayOfYear", day_of_year),
    ("getDayOfMonth", day_of_month),
    ("getDate", day),
    ("getDayOfWeek", day_of_week),
    ("getHours", hours),
    ("getMinutes", minutes),
    ("getSeconds", seconds),
    ("getMilliseconds", milliseconds),
];

/// What a duration can be asked.
pub(super) const WHOLES: [(&str, Function); 4] = [
    ("getHours", span_hours),
    ("getMinutes", span_minutes),
    ("getSeconds", span_seconds),
    ("getMilliseconds", span_milliseconds),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, us) in [
            ("1h30m", Some(5_400_000_000)),
            ("-1.5s", Some(-1_500_000)),
            ("250ms", Some(250_000)),
            ("10us", Some(10)),
            ("1000ns", Some(1)),
            ("0s", Some(0)),
            ("", None),
            ("1", None),
            ("h", None),
            ("1d", None),
            ("1..5s", None),
            ("999999999999h", None),
        ] {
            assert_eq!(Span::parse(text).map(|span| span.0), us, "{text}");
        }
    }

    #[test]
    fn zones_are_names_or_distances() {
        let hour = |zone: &str| {
            let moment = Moment::parse("2026-07-01T12:30:00Z").unwrap();
            Zone::find(zone).map(|zone| moment.civil(Some(&zone)).unwrap().hour())
        };
        assert_eq!((hour("UTC"), hour("+05:30"), hour("-02:00")), (Some(12), Some(18), Some(10)));
        for none in ["", "Nowhere/Never", "+5", "+24:00", "+aa:bb", "05:30", "+05:300"] {
            assert_eq!(hour(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_time_or_none(text in "\\PC{0,30}") {
            let _ = (Moment::parse(&text), Span::parse(&text), Zone::find(&text));
        }
    }
}
