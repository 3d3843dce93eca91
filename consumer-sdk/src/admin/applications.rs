//! Applications are lease tables.

use super::Error;
use crate::lease::Table;

/// The names of all tables that are laid out as lease tables, sorted: each is an application of this
/// crate's or of the KCL's.
pub async fn applications(client: &aws_sdk_dynamodb::Client) -> Result<Vec<String>, Error> {
    Ok(Table::lease_tables(client).await?)
}
