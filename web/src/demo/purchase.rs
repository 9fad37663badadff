//! An investor who buys through the site's own pages, and pays on the payment provider's.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use reqwest::{Client, header, redirect::Policy};
use sealyard_core::{
    accounts, catalog,
    contracts::{self, Contract},
};

use super::seed::{INVESTOR, INVESTOR_NAME, PASSWORD};
use crate::app::{Shared, read};

const PATIENCE: Duration = Duration::from_secs(30);

pub struct Buyer {
    pub url: String,
    /// The payment provider.
    pub outside: String,
}

impl Buyer {
    /// Signs up (or in), orders, pays, and waits for the contract. A contract that is there already is returned at once.
    pub async fn buy(&self, app: &Shared, units: i64) -> anyhow::Result<Contract> {
        if let Some(contract) = existing(app).await? {
            return Ok(contract);
        }
        let http = Client::builder().timeout(Duration::from_secs(30)).redirect(Policy::none()).no_proxy().build()?;
        let cookie = self.enter(&http).await?;
        let plan = read(app, catalog::plans_on_sale).await?.into_iter().next().context("nothing is on sale")?;
        let plan_url = format!("{}/plans/{}", self.url, plan.public_id);
        let (key, shown) = quoted(&http, &cookie, &format!("{plan_url}?units={units}")).await?;
        let form = [("units", units.to_string()), ("request_key", key), ("shown", shown)];
        let placed = http.post(&plan_url).header(header::COOKIE, &cookie).form(&form).send().await?;
        let order = location(&placed).context("the order was not placed")?;
        let page = http.get(format!("{}{order}", self.url)).header(header::COOKIE, &cookie).send().await?.text().await?;
        let pay = between(&page, "id=\"pay\" href=\"", "\"").context("the order has no payment page")?;
        if !pay.starts_with(&self.outside) {
            bail!("pay for the order at {pay}, then start the demo again");
        }
        http.post(&pay).send().await?.error_for_status_ref().context("paying")?;
        wait_for_contract(app).await
    }

    async fn enter(&self, http: &Client) -> anyhow::Result<String> {
        let form = [("email", INVESTOR), ("name", INVESTOR_NAME), ("password", PASSWORD)];
        let mut answer = http.post(format!("{}/signup", self.url)).form(&form).send().await?;
        if !answer.status().is_redirection() {
            answer = http.post(format!("{}/login", self.url)).form(&form).send().await?;
        }
        let cookie = answer.headers().get(header::SET_COOKIE).context("signing in failed")?.to_str()?;
        Ok(cookie.split(';').next().unwrap_or_default().to_owned())
    }
}

/// The quote's order form. Nothing is sold before the first machine has enrolled.
async fn quoted(http: &Client, cookie: &str, url: &str) -> anyhow::Result<(String, String)> {
    let started = Instant::now();
    loop {
        let page = http.get(url).header(header::COOKIE, cookie).send().await?.text().await?;
        let field = |name: &str| between(&page, &format!("name=\"{name}\" value=\""), "\"");
        if let (Some(key), Some(shown)) = (field("request_key"), field("shown")) {
            return Ok((key, shown));
        }
        anyhow::ensure!(started.elapsed() < PATIENCE, "the quote had no order form for {} s", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn existing(app: &Shared) -> anyhow::Result<Option<Contract>> {
    Ok(read(app, |conn| match accounts::by_email(conn, INVESTOR)? {
        Some(user) => Ok(contracts::of_user(conn, user.id)?.pop()),
        None => Ok(None),
    })
    .await?)
}

async fn wait_for_contract(app: &Shared) -> anyhow::Result<Contract> {
    let started = Instant::now();
    loop {
        if let Some(contract) = existing(app).await? {
            return Ok(contract);
        }
        anyhow::ensure!(started.elapsed() < PATIENCE, "the payment was not reported within {} s", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn location(response: &reqwest::Response) -> Option<String> {
    response.headers().get(header::LOCATION)?.to_str().ok().map(str::to_owned)
}

fn between(text: &str, before: &str, after: &str) -> Option<String> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(found, _)| found.to_owned())
}
