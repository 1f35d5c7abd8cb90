//! Names of tables and columns, literals and row addresses.

use proptest::{collection::vec, prelude::*, test_runner::TestCaseError};
use stagemill_engine::{
    chunk::Tid,
    ident::{Ident, TableName, literal},
};
use stagemill_fuzz::{
    is_fit_to_be_read, run,
    sql::skeleton,
    text::{Splice, any_text, name, splice, storable},
};

/// What people write: plain, quoted, with a schema, and damaged.
fn written() -> impl Strategy<Value = String> {
    let one = prop_oneof![any_text(), "[a-zA-Z_]{1,8}", name().prop_map(|name| Ident::exact(name).to_string())];
    (vec(one, 1..4), vec(splice(), 0..3)).prop_map(|(parts, splices)| {
        let mut text = parts.join(".");
        splices.iter().for_each(|splice: &Splice| splice.apply(&mut text));
        text
    })
}

fn is_a_name(name: &Ident) -> Result<(), TestCaseError> {
    let text = name.as_str();
    prop_assert!((1..=63).contains(&text.len()) && !text.contains('\0'), "{text:?}");
    prop_assert_eq!(skeleton(&name.to_string()), Ok("@".to_owned()));
    prop_assert_eq!(Ident::parse(&name.to_string()), Ok(name.clone()));
    prop_assert_eq!(Ident::parse(&name.as_in_sql()), Ok(name.clone()));
    Ok(())
}

#[test]
fn a_name_is_one_name_or_refused() {
    run("names", 800, written(), |text| match Ident::parse(&text) {
        Ok(name) => is_a_name(&name).map(|()| true),
        Err(refused) => is_fit_to_be_read(&refused.to_string()).map(|()| false),
    });
}

#[test]
fn a_table_is_a_name_with_or_without_a_schema_or_refused() {
    run("tables", 800, written(), |text| match TableName::parse(&text) {
        Ok(table) => {
            is_a_name(&table.name)?;
            table.schema.iter().try_for_each(is_a_name)?;
            prop_assert_eq!(TableName::parse(&table.to_string()), Ok(table.clone()));
            prop_assert_eq!(TableName::parse(&table.as_in_sql()), Ok(table.clone()));
            Ok(true)
        }
        Err(refused) => is_fit_to_be_read(&refused.to_string()).map(|()| false),
    });
}

#[test]
fn whatever_the_catalog_holds_is_quoted_so_that_it_reads_back() {
    run("names of the catalog", 400, (name(), storable()), |(name, value)| {
        is_a_name(&Ident::exact(name))?;
        prop_assert_eq!(skeleton(&literal(&value)), Ok("?".to_owned()));
        Ok(true)
    });
}

#[test]
fn a_row_address_reads_back_or_is_refused() {
    let inputs = prop_oneof![
        any_text(),
        (any::<u32>(), any::<u16>(), vec(splice(), 0..2)).prop_map(|(block, offset, splices)| {
            let mut text = format!("({block},{offset})");
            splices.iter().for_each(|splice: &Splice| splice.apply(&mut text));
            text
        })
    ];
    run("row addresses", 400, inputs, |text| {
        let Some(tid) = Tid::parse(&text) else { return Ok(false) };
        prop_assert_eq!(Tid::parse(&tid.to_string()), Some(tid));
        Ok(true)
    });
}
