//! The executor Lambda: applies a range of chunks, and answers with what is left when its time is nearly up.

mod answer;

use lambda_runtime::Context;
use stagemill_engine::{
    apply::{self, Left, Worker},
    chunk::Item,
    failure::{Class, Failure},
    ledger,
};
use stagemill_lambda::{boot, deadline, metric::Metrics, session::Session};

use answer::{Answer, Meter};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let session = Session::from_env().await;
    let metrics = Metrics::new()?;
    boot::run(async |item, context: Context| execute(&session, &metrics, item, &context).await).await
}

async fn execute(session: &Session, metrics: &Metrics, item: Item, context: &Context) -> Result<Answer, Failure> {
    let stop = deadline::stop(context, deadline::margin()?);
    let connection = session.open().await?;
    let run = ledger::run::load(&connection, item.run).await?;
    let meter = Meter::new(metrics, &run.job);
    let worker =
        Worker { connection: &connection, run: &run, name: &format!("lambda:{}", context.request_id), rank: None };
    match apply::item(worker, &item, &stop, &|event| meter.report(item.run, &event)).await {
        Ok(left) => Answer::new(&item, &left, meter.moved()),
        // Halted or closed: the recorder judges, and this item has nothing more to do.
        Err(failure) if failure.class == Class::RunClosed => Answer::new(&item, &Left::default(), 0),
        Err(failure) => Err(failure),
    }
}
