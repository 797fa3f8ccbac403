//! What `clusterctl generate cluster --from` makes of the variables of a template.

use anyhow::{Context as _, Result};
use e2e::clusterctl::Clusterctl;

use super::{files, generated, samples};

#[tokio::test(flavor = "multi_thread")]
async fn required_variables_are_asked_for_by_name_and_optional_ones_have_an_effect() -> Result<()> {
    let Some(clusterctl) = Clusterctl::find()? else {
        return Ok(());
    };
    let mut wrong = Vec::new();
    for file in files::all()?.iter().filter(|file| !file.is_class()) {
        let variables = generated::variables(&clusterctl, file).await?;
        let required = samples::required(&variables);
        let generated = generated::generated(&clusterctl, file, &required).await;
        let generated = generated.with_context(|| file.name.clone())?;
        for name in required.keys() {
            let mut some = required.clone();
            some.remove(name);
            match clusterctl.generate(&file.path, &some).await {
                Ok(_) => wrong.push(format!("{}: {name} is not asked for", file.name)),
                Err(error) if error.to_string().contains(&format!("[{name}]")) => {}
                Err(error) => wrong.push(format!("{}: {name} is not named by {error}", file.name)),
            }
        }
        for (name, value) in samples::optional(&variables) {
            let mut more = required.clone();
            more.insert(name.clone(), value.clone());
            match generated::generated(&clusterctl, file, &more).await {
                Ok(other) if other == generated => {
                    wrong.push(format!("{}: {name}={value} changes nothing", file.name));
                }
                Ok(_) => {}
                Err(error) => wrong.push(format!("{}: {name}={value}: {error}", file.name)),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
