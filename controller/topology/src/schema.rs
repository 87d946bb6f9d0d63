//! The JSON Schema of the file, for editors: made from the same structs that read it.

/// The JSON Schema (draft 2020-12) of a topology file.
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(crate::said::lab::Lab);
    schema.insert("title".to_owned(), "A vnet topology file (*.vnet.yaml)".into());
    schema.to_value()
}
