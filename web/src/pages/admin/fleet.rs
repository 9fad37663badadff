//! The operator's console: machines, their keys, and tokens with which others are enrolled.

use actix_web::{HttpResponse, web};
use askama::Template;
use sealyard_core::{
    accounts,
    clock::{DAY, minute_text},
    fleet::{self, Draining, Machine, OpenToken},
    store::{AnyConnection, DbResult},
    units::Bytes,
    views::{self, MachineView},
};
use serde::Deserialize;

use crate::{
    app::{App, Shared, read, write},
    auth::Admin,
    error::WebError,
    form::Form,
    pages::{html, redirect},
    visitor::Visitor,
};

pub fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/admin/fleet").get(page).post(new_token))
        .route("/admin/fleet/tokens/withdraw", web::post().to(withdraw))
        .route("/admin/fleet/{machine}/drain", web::post().to(drain))
        .route("/admin/fleet/{machine}/key", web::post().to(new_key))
        .route("/admin/fleet/{machine}/revoke", web::post().to(revoke))
        .route("/admin/fleet/{machine}/remove", web::post().to(remove));
}

struct MachineRow {
    id: String,
    name: String,
    cores: i64,
    memory: String,
    disk: String,
    gpus: i64,
    detail: String,
    seen: String,
    doing: String,
    /// Sealed sectors that are there.
    kept: i64,
    /// Where other machines read its files.
    files: String,
    is_for_storage: bool,
    is_draining: bool,
    is_lost: bool,
    is_revoked: bool,
}

struct TokenRow {
    digest: String,
    name: String,
    made: String,
    until: String,
    is_new_key: bool,
}

/// A token that was just made, and what it is for.
struct NewToken {
    token: String,
    machine: String,
    is_new_key: bool,
}

#[derive(Template)]
#[template(path = "admin/fleet.html")]
struct FleetPage {
    user: Option<Visitor>,
    machines: Vec<MachineRow>,
    tokens: Vec<TokenRow>,
    made: Option<NewToken>,
}

impl MachineRow {
    fn new(row: MachineView) -> Self {
        let MachineView {
            machine: m,
            doing,
            stored,
        } = row;
        Self {
            kept: stored,
            is_for_storage: m.is_for_storage(),
            files: m.files_url.clone().unwrap_or_else(|| "none".into()),
            is_draining: m.is_draining(),
            is_lost: m.is_lost(),
            is_revoked: m.revoked_at.is_some(),
            id: m.public_id,
            name: m.name,
            cores: m.cores,
            memory: Bytes(m.memory_bytes).to_string(),
            disk: format!(
                "{} free of {}",
                Bytes(m.disk_free_bytes),
                Bytes(m.disk_bytes)
            ),
            gpus: m.gpus,
            detail: m.detail,
            seen: minute_text(m.seen_at),
            doing: if doing.is_empty() {
                "idle".into()
            } else {
                doing.join("; ")
            },
        }
    }
}

impl TokenRow {
    fn new(token: OpenToken) -> Self {
        Self {
            digest: token.digest,
            name: token.name,
            made: minute_text(token.created_at),
            until: minute_text(token.expires_at),
            is_new_key: token.for_machine.is_some(),
        }
    }
}

async fn show(
    app: &Shared,
    user: Visitor,
    made: Option<NewToken>,
) -> Result<HttpResponse, WebError> {
    let now = app.now();
    let fleet = read(app, move |conn| views::fleet(conn, now)).await?;
    html(&FleetPage {
        user: Some(user),
        machines: fleet.machines.into_iter().map(MachineRow::new).collect(),
        tokens: fleet.tokens.into_iter().map(TokenRow::new).collect(),
        made,
    })
}

async fn page(app: web::Data<App>, Admin(user): Admin) -> Result<HttpResponse, WebError> {
    show(&app.into_inner(), (&user).into(), None).await
}

#[derive(Deserialize)]
struct TokenForm {
    name: String,
}

async fn new_token(
    app: web::Data<App>,
    Admin(user): Admin,
    form: Form<TokenForm>,
) -> Result<HttpResponse, WebError> {
    let app: Shared = app.into_inner();
    let name = form.into_inner().name.trim().to_owned();
    if name.is_empty() || name.len() > 60 {
        return Err(WebError::BadInput(
            "Give the machine a name of at most 60 characters.".into(),
        ));
    }
    let (now, admin, machine) = (app.now(), user.id, name.clone());
    let token = write(&app, move |conn| {
        accounts::record(conn, now, Some(admin), "enrolment token", &name, "")?;
        fleet::new_token(conn, &name, now, now + DAY)
    })
    .await?;
    show(
        &app,
        (&user).into(),
        Some(NewToken {
            token,
            machine,
            is_new_key: false,
        }),
    )
    .await
}

#[derive(Deserialize)]
struct WithdrawForm {
    token: String,
}

async fn withdraw(
    app: web::Data<App>,
    Admin(user): Admin,
    form: Form<WithdrawForm>,
) -> Result<HttpResponse, WebError> {
    let app: Shared = app.into_inner();
    let (digest, now, admin) = (form.into_inner().token, app.now(), user.id);
    let withdrawn = write(&app, move |conn| {
        let withdrawn = fleet::withdraw_token(conn, &digest, now)?;
        if withdrawn {
            accounts::record(
                conn,
                now,
                Some(admin),
                "enrolment token withdrawn",
                &digest,
                "",
            )?;
        }
        Ok(withdrawn)
    })
    .await?;
    if withdrawn {
        Ok(redirect("/admin/fleet"))
    } else {
        Err(WebError::BadInput(
            "This token is no longer valid. If a machine has used it, withdraw that machine's key."
                .into(),
        ))
    }
}

/// Does something to a machine, as this administrator. `None`: it could not be done, and nothing is
/// recorded.
async fn change<T: Send + 'static>(
    app: &Shared,
    admin: &accounts::User,
    id: String,
    name: &'static str,
    mut work: impl FnMut(&mut AnyConnection, &Machine, i64) -> DbResult<Option<T>> + Send + 'static,
) -> Result<(Machine, Option<T>), WebError> {
    let (now, admin) = (app.now(), admin.id);
    let changed = write(app, move |conn| {
        let Some(machine) = fleet::by_public_id(conn, &id)? else {
            return Ok(None);
        };
        let result = work(conn, &machine, now)?;
        if result.is_some() {
            accounts::record(conn, now, Some(admin), name, &machine.name, &id)?;
        }
        Ok(Some((machine, result)))
    })
    .await?;
    changed.ok_or(WebError::NotFound)
}

/// The state that is wanted, not a switch: a form that is sent twice changes nothing twice.
#[derive(Deserialize)]
struct DrainForm {
    drain: bool,
}

async fn drain(
    app: web::Data<App>,
    Admin(user): Admin,
    id: web::Path<String>,
    form: Form<DrainForm>,
) -> Result<HttpResponse, WebError> {
    let (draining, name) = if form.0.drain {
        (Draining::Start, "drain")
    } else {
        (Draining::Stop, "use again")
    };
    change(
        &app.into_inner(),
        &user,
        id.into_inner(),
        name,
        move |conn, machine, _| fleet::set_draining(conn, machine.id, draining).map(Some),
    )
    .await?;
    Ok(redirect("/admin/fleet"))
}

async fn new_key(
    app: web::Data<App>,
    Admin(user): Admin,
    id: web::Path<String>,
) -> Result<HttpResponse, WebError> {
    let app: Shared = app.into_inner();
    let (machine, token) = change(
        &app,
        &user,
        id.into_inner(),
        "token for a new key",
        |conn, machine, now| fleet::new_key_token(conn, machine, now, now + DAY).map(Some),
    )
    .await?;
    let made = token.map(|token| NewToken {
        token,
        machine: machine.name,
        is_new_key: true,
    });
    show(&app, (&user).into(), made).await
}

async fn revoke(
    app: web::Data<App>,
    Admin(user): Admin,
    id: web::Path<String>,
) -> Result<HttpResponse, WebError> {
    let revoking = |conn: &mut AnyConnection, machine: &Machine, now| {
        Ok(fleet::revoke(conn, machine.id, now)?.then_some(()))
    };
    change(
        &app.into_inner(),
        &user,
        id.into_inner(),
        "key withdrawn",
        revoking,
    )
    .await?;
    Ok(redirect("/admin/fleet"))
}

async fn remove(
    app: web::Data<App>,
    Admin(user): Admin,
    id: web::Path<String>,
) -> Result<HttpResponse, WebError> {
    let removing = |conn: &mut AnyConnection, machine: &Machine, now| {
        Ok(fleet::remove(conn, machine.id, now)?.then_some(()))
    };
    let (machine, removed) = change(
        &app.into_inner(),
        &user,
        id.into_inner(),
        "removal",
        removing,
    )
    .await?;
    if removed.is_some() {
        return Ok(redirect("/admin/fleet"));
    }
    let name = machine.name;
    Err(WebError::BadInput(format!(
        "{name} still has sectors, or its key is still valid. Withdraw its key first, \
         then wait until its sectors expire."
    )))
}
