//! Functions of texts, under the names that CEL's extension for strings gives them. The `cel` crate's own look for a text in
//! quadratic time and split into as many pieces as there are.

use cel::{
    DeclarationError, Env, ExecutionError,
    common::{
        types::{CelInt, CelList, CelString, INT_TYPE, STRING_TYPE},
        value::{CowVal, Val},
    },
};
use memchr::memmem;

/// Pieces that a text is split into, at most.
pub(super) const PIECES_MAX: usize = 256;

type Answer<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

fn text<'a>(arguments: &'a [CowVal<'_, '_>], at: usize) -> Result<&'a str, ExecutionError> {
    let text = arguments.get(at).and_then(|text| text.downcast_ref::<CelString<'_>>());
    text.map(|text| text.inner()).ok_or_else(ExecutionError::missing_argument_or_target)
}

/// A place in a text, in characters, as bytes.
fn place(arguments: &[CowVal<'_, '_>], at: usize, text: &str) -> Result<usize, ExecutionError> {
    let place = arguments.get(at).and_then(|place| place.downcast_ref::<CelInt>());
    let place = *place.ok_or_else(ExecutionError::missing_argument_or_target)?.inner();
    let places = || text.char_indices().map(|(at, _)| at).chain([text.len()]);
    usize::try_from(place)
        .ok()
        .and_then(|place| places().nth(place))
        .ok_or_else(|| ExecutionError::function_error("substring", "a place is not in the text"))
}

fn owned<'b, 'v>(text: String) -> CowVal<'b, 'v> {
    CowVal::owned(CelString::from(text))
}

/// Where something is, in characters; -1: nowhere.
fn index<'b, 'v>(text: &str, at: Option<usize>) -> CowVal<'b, 'v> {
    CowVal::owned(CelInt::from(at.map_or(-1, |at| text[..at].chars().count() as i64)))
}

fn lower_ascii<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    text(&arguments, 0).map(|text| owned(text.to_ascii_lowercase()))
}

fn upper_ascii<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    text(&arguments, 0).map(|text| owned(text.to_ascii_uppercase()))
}

fn trim<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    text(&arguments, 0).map(|text| owned(text.trim().to_owned()))
}

fn substring<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let text = text(&arguments, 0)?;
    let from = place(&arguments, 1, text)?;
    let to = if arguments.len() > 2 { place(&arguments, 2, text)? } else { text.len() };
    let part = text.get(from..to);
    part.map(|part| owned(part.to_owned()))
        .ok_or_else(|| ExecutionError::function_error("substring", "it ends before it begins"))
}

fn index_of<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let (text, part) = (text(&arguments, 0)?, text(&arguments, 1)?);
    Ok(index(text, memmem::find(text.as_bytes(), part.as_bytes())))
}

fn last_index_of<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let (text, part) = (text(&arguments, 0)?, text(&arguments, 1)?);
    Ok(index(text, memmem::rfind(text.as_bytes(), part.as_bytes())))
}

fn split<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let (text, by) = (text(&arguments, 0)?, text(&arguments, 1)?);
    // By nothing: into its characters.
    let pieces: Vec<String> = if by.is_empty() {
        text.chars().take(PIECES_MAX + 1).map(String::from).collect()
    } else {
        text.split(by).take(PIECES_MAX + 1).map(str::to_owned).collect()
    };
    if pieces.len() > PIECES_MAX {
        return Err(ExecutionError::function_error("split", "there are too many pieces"));
    }
    let pieces = pieces.into_iter().map(|piece| Box::new(CelString::from(piece)) as Box<dyn Val>);
    Ok(CowVal::owned(CelList::from(pieces.collect::<Vec<_>>())))
}

/// Declares the functions.
pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    let mut member = |name: &str, arguments: &[cel::common::types::Type], function| {
        let id = format!("string_{name}_{}", arguments.len());
        let arguments = arguments.iter().map(ToOwned::to_owned).collect();
        env.add_member_overload(name, &id, STRING_TYPE, arguments, function)
    };
    member("lowerAscii", &[], lower_ascii)?;
    member("upperAscii", &[], upper_ascii)?;
    member("trim", &[], trim)?;
    member("substring", &[INT_TYPE], substring)?;
    member("substring", &[INT_TYPE, INT_TYPE], substring)?;
    member("indexOf", &[STRING_TYPE], index_of)?;
    member("lastIndexOf", &[STRING_TYPE], last_index_of)?;
    member("split", &[STRING_TYPE], split)
}
