//! Secrets with versions: kv version 2.

use actix_web::http::StatusCode;
use mssm_domain::{Document, SecretText, Timestamp};
use mssm_messages::kv::{
    ChangeVersions, DeleteMetadata, KvPath, ListVersioned, MetadataPatch, MetadataView,
    PatchVersion, ReadConfig, ReadMetadata, ReadSubkeys, ReadVersion, VersionView, VersionedSecret,
    VersionsChange, WriteConfig, WriteMetadata, WriteVersion,
};

use crate::answer::Answer;
use crate::body::Body;
use crate::call::{Media, Verb};
use crate::door::{NEAR, ask};
use crate::error::Refusal;
use crate::json::Object;
use crate::pipeline::Visit;
use crate::resources::kv1::page;

/// What Vault says to who forgets `data/`.
const WRONG_PATH: &str = "Invalid path for a versioned K/V secrets engine. See the API docs for \
    the appropriate API endpoints to use. If using the Vault CLI, use 'vault kv get' for this \
    operation.";

/// Answers below such a mount.
pub(crate) async fn answer(visit: &Visit) -> Result<Answer, Refusal> {
    let (head, tail) = visit.rest().split_once('/').unwrap_or((visit.rest(), ""));
    match (head, visit.call.verb) {
        ("data", Verb::Read) => read(visit, tail).await,
        ("data", Verb::Write) => write(visit, tail).await,
        ("data", Verb::Patch) => patch(visit, tail).await,
        ("data", Verb::Delete) => change(visit, tail, Vec::new(), VersionsChange::Delete).await,
        ("delete", Verb::Write) => named(visit, tail, VersionsChange::Delete).await,
        ("undelete", Verb::Write) => named(visit, tail, VersionsChange::Undelete).await,
        ("destroy", Verb::Write) => named(visit, tail, VersionsChange::Destroy).await,
        ("subkeys", Verb::Read) => subkeys(visit, tail).await,
        ("metadata", Verb::Read) => read_metadata(visit, tail).await,
        ("metadata", Verb::List) => list(visit, tail).await,
        ("metadata", Verb::Write) => write_metadata(visit, tail, false).await,
        ("metadata", Verb::Patch) => write_metadata(visit, tail, true).await,
        ("metadata", Verb::Delete) => {
            let message = DeleteMetadata { mount: visit.mount.id, path: KvPath::parse(tail)? };
            ask(&visit.worker.door.kv.delete_metadata, message, NEAR).await?;
            Ok(Answer::done())
        }
        ("config", Verb::Read) if tail.is_empty() => read_config(visit).await,
        ("config", Verb::Write) if tail.is_empty() => write_config(visit).await,
        ("data" | "delete" | "undelete" | "destroy" | "subkeys" | "config", _) => {
            Err(Refusal::unsupported_operation())
        }
        _ => Ok(Answer::empty_envelope()
            .with_status(StatusCode::NOT_FOUND)
            .warn(vec![WRONG_PATH.to_owned()])),
    }
}

/// A time as kv shows it: empty for none.
fn time(at: Option<Timestamp>) -> String {
    at.map(Timestamp::rfc3339).unwrap_or_default()
}

fn circumstances(view: &VersionView) -> Object {
    Object::new()
        .text("created_time", &view.created_at.rfc3339())
        .map("custom_metadata", &view.custom_metadata)
        .text("deletion_time", &time(view.deleted_at))
        .flag("destroyed", view.destroyed)
        .number("version", view.version)
}

/// A version: found, or a 404 that says what became of it.
fn show(key: &str, secret: &VersionedSecret) -> Answer {
    let metadata = circumstances(&secret.view);
    match &secret.document {
        Some(document) => {
            // EXPOSE: the answer is where the secret is meant to go.
            let text = document.expose();
            let data = Object::sized(text.len() + 256).raw(key, text);
            Answer::data(data.object("metadata", metadata))
        }
        None => Answer::data(Object::new().null(key).object("metadata", metadata))
            .with_status(StatusCode::NOT_FOUND),
    }
}

async fn read(visit: &Visit, tail: &str) -> Result<Answer, Refusal> {
    let message = ReadVersion {
        mount: visit.mount.id,
        path: KvPath::parse(tail)?,
        version: visit.call.query.number("version")?,
    };
    Ok(show("data", &ask(&visit.worker.door.kv.read_version, message, NEAR).await?))
}

async fn subkeys(visit: &Visit, tail: &str) -> Result<Answer, Refusal> {
    let query = &visit.call.query;
    let depth = query.number("depth")?.unwrap_or(0);
    let message = ReadSubkeys {
        mount: visit.mount.id,
        path: KvPath::parse(tail)?,
        version: query.number("version")?,
        depth: u32::try_from(depth).unwrap_or(u32::MAX),
    };
    Ok(show("subkeys", &ask(&visit.worker.door.kv.read_subkeys, message, NEAR).await?))
}

/// The document and the check-and-set version of a write.
fn contents(body: &Body) -> Result<(Document, Option<u64>), Refusal> {
    let raw = body.raw("data").ok_or_else(|| Refusal::invalid("no data provided"))?;
    if !raw.starts_with('{') {
        let text = "error converting input for field \"data\": expected an object";
        return Err(Refusal::invalid(text));
    }
    let document = Document::from_checked_json(SecretText::new(raw.to_owned()));
    let cas = body.object("options")?.map(|options| options.number("cas")).transpose()?;
    Ok((document, cas.flatten()))
}

async fn write(visit: &Visit, tail: &str) -> Result<Answer, Refusal> {
    let path = KvPath::parse(tail)?;
    let (document, check_and_set) = contents(&visit.call.body)?;
    let message = WriteVersion { mount: visit.mount.id, path, document, check_and_set };
    let view = ask(&visit.worker.door.kv.write_version, message, NEAR).await?;
    Ok(Answer::data(circumstances(&view)))
}

fn must_be_merge_patch(visit: &Visit) -> Result<(), Refusal> {
    let wanted = "PATCH requires Content-Type of application/merge-patch+json";
    match visit.call.media {
        Media::MergePatch => Ok(()),
        Media::Unsaid => Err(Refusal::invalid(format!("mime: no media type; {wanted}"))),
        Media::Form | Media::Other => Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, wanted)),
    }
}

async fn patch(visit: &Visit, tail: &str) -> Result<Answer, Refusal> {
    must_be_merge_patch(visit)?;
    let path = KvPath::parse(tail)?;
    let (patch, check_and_set) = contents(&visit.call.body)?;
    let message = PatchVersion { mount: visit.mount.id, path, patch, check_and_set };
    let view = ask(&visit.worker.door.kv.patch_version, message, NEAR).await?;
    Ok(Answer::data(circumstances(&view)))
}

async fn named(visit: &Visit, tail: &str, what: VersionsChange) -> Result<Answer, Refusal> {
    let none = || Refusal::invalid("No version number provided");
    let versions = visit.call.body.list("versions")?.ok_or_else(none)?;
    let parse = |text: &String| text.parse::<u64>();
    let versions: Result<Vec<u64>, _> = versions.iter().map(parse).collect();
    let versions = versions.map_err(|_| {
        Refusal::invalid("error converting input for field \"versions\": expected whole numbers")
    })?;
    if versions.is_empty() {
        return Err(none());
    }
    change(visit, tail, versions, what).await
}

async fn change(
    visit: &Visit,
    tail: &str,
    versions: Vec<u64>,
    change: VersionsChange,
) -> Result<Answer, Refusal> {
    let path = KvPath::parse(tail)?;
    let message = ChangeVersions { mount: visit.mount.id, path, versions, change };
    ask(&visit.worker.door.kv.change_versions, message, NEAR).await?;
    Ok(Answer::done())
}

async fn list(visit: &Visit, tail: &str) -> Result<Answer, Refusal> {
    let folder = tail.strip_suffix('/').unwrap_or(tail).to_owned();
    let (after, limit) = page(visit)?;
    let message = ListVersioned { mount: visit.mount.id, folder, after, limit };
    Ok(Answer::keys(ask(&visit.worker.door.kv.list_versioned, message, NEAR).await?))
}

async fn read_metadata(visit: &Visit, tail: &str) -> Result<Answer, Refusal> {
    let message = ReadMetadata { mount: visit.mount.id, path: KvPath::parse(tail)? };
    let view = ask(&visit.worker.door.kv.read_metadata, message, NEAR).await?;
    Ok(Answer::data(metadata(&view)))
}

fn metadata(view: &MetadataView) -> Object {
    let mut versions = Object::new();
    for version in &view.versions {
        let entry = Object::new()
            .text("created_time", &version.created_at.rfc3339())
            .text("deletion_time", &time(version.deleted_at))
            .flag("destroyed", version.destroyed);
        versions = versions.object(&version.version.to_string(), entry);
    }
    Object::new()
        .flag("cas_required", view.cas_required)
        .text("created_time", &view.created_at.rfc3339())
        .number("current_version", view.current_version)
        .map("custom_metadata", &view.custom_metadata)
        .text("delete_version_after", &go_duration(view.delete_version_after_secs))
        .number("max_versions", view.max_versions)
        .number("oldest_version", view.oldest_version)
        .text("updated_time", &view.updated_at.rfc3339())
        .object("versions", versions)
}

async fn write_metadata(visit: &Visit, tail: &str, merge: bool) -> Result<Answer, Refusal> {
    if merge {
        must_be_merge_patch(visit)?;
    }
    let path = KvPath::parse(tail)?;
    let body = &visit.call.body;
    let mut patch = MetadataPatch {
        max_versions: body.number("max_versions")?,
        cas_required: body.flag("cas_required")?,
        delete_version_after_secs: body.duration("delete_version_after")?,
        ..MetadataPatch::default()
    };
    if merge {
        patch.merge_custom_metadata = body.nullable_map("custom_metadata")?;
    } else {
        patch.custom_metadata = body.map("custom_metadata")?;
    }
    let message = WriteMetadata { mount: visit.mount.id, path, patch, must_exist: merge };
    ask(&visit.worker.door.kv.write_metadata, message, NEAR).await?;
    Ok(Answer::done())
}

async fn read_config(visit: &Visit) -> Result<Answer, Refusal> {
    let message = ReadConfig { mount: visit.mount.id };
    let config = ask(&visit.worker.door.kv.read_config, message, NEAR).await?;
    Ok(Answer::data(
        Object::new()
            .flag("cas_required", config.cas_required)
            .text("delete_version_after", &go_duration(config.delete_version_after_secs))
            .number("max_versions", config.max_versions),
    ))
}

async fn write_config(visit: &Visit) -> Result<Answer, Refusal> {
    let body = &visit.call.body;
    let message = WriteConfig {
        mount: visit.mount.id,
        max_versions: body.number("max_versions")?,
        cas_required: body.flag("cas_required")?,
        delete_version_after_secs: body.duration("delete_version_after")?,
    };
    ask(&visit.worker.door.kv.write_config, message, NEAR).await?;
    Ok(Answer::done())
}

/// A duration as Go prints it: `0s`, `30s`, `1m30s`, `3h0m0s`.
fn go_duration(secs: u64) -> String {
    let (hours, minutes, seconds) = (secs / 3600, secs / 60 % 60, secs % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_shown_as_go_shows_them() {
        for (secs, text) in [(0, "0s"), (30, "30s"), (90, "1m30s"), (10_800, "3h0m0s")] {
            assert_eq!(go_duration(secs), text);
        }
    }
}
