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
    /// Signs up (or in), orders, pays, and waits for the contract. An existing contract is returned
    /// at once.
    pub async fn buy(&self, app: &Shared, units: i64) -> anyhow::Result<Contract> {
        if let Some(contract) = contracts(app).await?.pop() {
            return Ok(contract);
        }
        self.buy_another(app, units).await
    }

    /// Signs up (or in), orders, pays, and waits for one more contract.
    pub async fn buy_another(&self, app: &Shared, units: i64) -> anyhow::Result<Contract> {
        let known = contracts(app).await?.len();
        let http = Client::builder()
            .timeout(Duration::from_secs(30))
            .redirect(Policy::none())
            .no_proxy()
            .build()?;
        let cookie = self.enter(&http).await?;
        let order = self.order(app, &http, &cookie, units).await?;
        self.pay(&http, &cookie, &order).await?;
        wait_for_contract(app, known).await
    }

    /// Orders from the first plan on sale. Returns the path of the order's page.
    async fn order(
        &self,
        app: &Shared,
        http: &Client,
        cookie: &str,
        units: i64,
    ) -> anyhow::Result<String> {
        let plan = read(app, catalog::plans_on_sale)
            .await?
            .into_iter()
            .next()
            .context("nothing is on sale")?;
        let plan_url = format!("{}/plans/{}", self.url, plan.public_id);
        let (key, shown) = quoted(http, cookie, &format!("{plan_url}?units={units}")).await?;
        let form = [
            ("units", units.to_string()),
            ("request_key", key),
            ("shown", shown),
        ];
        let placed = http
            .post(&plan_url)
            .header(header::COOKIE, cookie)
            .form(&form)
            .send()
            .await?;
        location(&placed).context("the order was not placed")
    }

    async fn pay(&self, http: &Client, cookie: &str, order: &str) -> anyhow::Result<()> {
        let page = http
            .get(format!("{}{order}", self.url))
            .header(header::COOKIE, cookie)
            .send()
            .await?
            .text()
            .await?;
        let pay =
            between(&page, "id=\"pay\" href=\"", "\"").context("the order has no payment page")?;
        if !pay.starts_with(&self.outside) {
            bail!("pay for the order at {pay}, then start the demo again");
        }
        http.post(&pay)
            .send()
            .await?
            .error_for_status_ref()
            .context("paying")?;
        Ok(())
    }

    /// Signs up, or in. Returns the session's cookie.
    async fn enter(&self, http: &Client) -> anyhow::Result<String> {
        let form = [
            ("email", INVESTOR),
            ("name", INVESTOR_NAME),
            ("password", PASSWORD),
        ];
        let mut answer = http
            .post(format!("{}/signup", self.url))
            .form(&form)
            .send()
            .await?;
        if !answer.status().is_redirection() {
            answer = http
                .post(format!("{}/login", self.url))
                .form(&form)
                .send()
                .await?;
        }
        let cookie = answer
            .headers()
            .get(header::SET_COOKIE)
            .context("signing in failed")?
            .to_str()?;
        Ok(cookie.split(';').next().unwrap_or_default().to_owned())
    }
}

/// The quote's order form. Nothing is sold before the first machine has enrolled.
async fn quoted(http: &Client, cookie: &str, url: &str) -> anyhow::Result<(String, String)> {
    let started = Instant::now();
    loop {
        let page = http
            .get(url)
            .header(header::COOKIE, cookie)
            .send()
            .await?
            .text()
            .await?;
        let field = |name: &str| between(&page, &format!("name=\"{name}\" value=\""), "\"");
        if let (Some(key), Some(shown)) = (field("request_key"), field("shown")) {
            return Ok((key, shown));
        }
        anyhow::ensure!(
            started.elapsed() < PATIENCE,
            "the quote had no order form for {} s",
            PATIENCE.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The investor's contracts, oldest first.
async fn contracts(app: &Shared) -> anyhow::Result<Vec<Contract>> {
    let mut all = read(app, |conn| match accounts::by_email(conn, INVESTOR)? {
        Some(user) => contracts::of_user(conn, user.id),
        None => Ok(Vec::new()),
    })
    .await?;
    all.sort_by_key(|contract| contract.id);
    Ok(all)
}

/// Waits until there are more than `known` contracts. Returns the newest.
async fn wait_for_contract(app: &Shared, known: usize) -> anyhow::Result<Contract> {
    let started = Instant::now();
    loop {
        let mut all = contracts(app).await?;
        if all.len() > known
            && let Some(contract) = all.pop()
        {
            return Ok(contract);
        }
        anyhow::ensure!(
            started.elapsed() < PATIENCE,
            "the payment was not reported within {} s",
            PATIENCE.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn location(response: &reqwest::Response) -> Option<String> {
    response
        .headers()
        .get(header::LOCATION)?
        .to_str()
        .ok()
        .map(str::to_owned)
}

fn between(text: &str, before: &str, after: &str) -> Option<String> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(found, _)| found.to_owned())
}
