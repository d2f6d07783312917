//! The manifests in `bins/pkg/kubernetes`. `tests/kubernetes.sh` also compares them with the schemas of Kubernetes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rtftp_core::config::disk::{Board, DiskConfig};
use rtftp_tests::{not_tested, run_with_bad_arguments};
use saphyr::{LoadableYamlNode as _, Scalar, Yaml};
use serde_json::Value;

const CONTAINERFILE: &str = include_str!("../../bins/pkg/Containerfile");

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("bins/pkg/kubernetes")
}

/// Returns the documents in some YAML.
#[track_caller]
fn documents(yaml: &str) -> Vec<Value> {
    let documents = Yaml::load_from_str(yaml).unwrap_or_else(|error| panic!("{error}:\n{yaml}"));
    documents.iter().map(json).collect()
}

fn json(yaml: &Yaml<'_>) -> Value {
    match yaml {
        Yaml::Value(Scalar::Boolean(value)) => (*value).into(),
        Yaml::Value(Scalar::Integer(value)) => (*value).into(),
        Yaml::Value(Scalar::String(value)) => value.to_string().into(),
        Yaml::Sequence(values) => values.iter().map(json).collect(),
        Yaml::Mapping(entries) => {
            let entries = entries.iter().map(|(key, value)| (key.as_str().expect("a string").to_owned(), json(value)));
            Value::Object(entries.collect())
        }
        other => panic!("not expected: {other:?}"),
    }
}

/// Returns the files below a directory with this extension.
fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    let below = entries.flat_map(|path| if path.is_dir() { files(&path, extension) } else { vec![path] });
    below.filter(|path| path.extension() == Some(extension.as_ref())).collect()
}

/// Returns all strings in a document.
fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(values) => values.iter().flat_map(strings).collect(),
        Value::Object(entries) => entries.values().flat_map(strings).collect(),
        _ => vec![],
    }
}

#[test]
fn every_file_is_yaml_with_options_of_the_daemon_only() {
    let help = String::from_utf8(run_with_bad_arguments(["--help"]).stdout).expect("UTF-8");
    let mut options = 0;
    for path in files(&manifests(), "yaml") {
        let documents = documents(&fs::read_to_string(&path).expect("a file"));
        assert_eq!(documents.len(), 1, "{}", path.display());
        for option in documents.iter().flat_map(strings).filter(|text| text.starts_with("--")) {
            let name = option.split('=').next().expect("a name");
            assert!(help.contains(&format!(" {name} ")) || help.contains(&format!(" {name}\n")), "{option}");
            options += 1;
        }
    }
    assert!(options >= 6, "only {options} options were found");
}

#[test]
fn the_example_of_a_root_directory_is_valid() {
    let base = manifests().join("base");
    for path in files(&base, "nbd") {
        let board = Board { ip: [10, 0, 0, 5].into(), mac: None, hostname: None, serial: None };
        let described = DiskConfig::parse_for(&fs::read(&path).expect("a file"), &board);
        assert!(described.is_ok(), "{}: {described:?}", path.display());
    }
    let [kustomization] = &documents(&fs::read_to_string(base.join("kustomization.yaml")).expect("a file"))[..] else {
        panic!("not one document")
    };
    let generated = &kustomization["configMapGenerator"][0];
    assert_eq!(generated["options"]["disableNameSuffixHash"], true, "a change must reach running pods");
    let mut keys = vec![];
    for file in generated["files"].as_array().expect("files") {
        let (key, path) = file.as_str().and_then(|file| file.split_once('=')).expect("KEY=PATH");
        assert!(base.join(path).is_file(), "{path}");
        keys.push(key);
    }
    let deployment = &documents(&fs::read_to_string(base.join("deployment.yaml")).expect("a file"))[0];
    let volume = &deployment["spec"]["template"]["spec"]["volumes"][0]["configMap"];
    assert_eq!(volume["name"], generated["name"]);
    let items: Vec<_> = volume["items"].as_array().expect("items").iter().map(|item| &item["key"]).collect();
    assert_eq!(items, keys, "each key is mounted");
}

/// Returns what kubectl makes of a way; `None` if it is not installed.
fn rendered(way: &str) -> Option<Vec<Value>> {
    let Ok(output) = Command::new("kubectl").arg("kustomize").arg(manifests().join(way)).output() else {
        not_tested("kubectl is not installed");
        return None;
    };
    assert!(output.status.success(), "{way}: {}", String::from_utf8_lossy(&output.stderr));
    Some(documents(&String::from_utf8(output.stdout).expect("UTF-8")))
}

/// Returns the document of a kind.
#[track_caller]
fn of_kind<'d>(documents: &'d [Value], kind: &str) -> &'d Value {
    documents.iter().find(|document| document["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

/// Returns the pod and its container.
#[track_caller]
fn pod<'d>(documents: &'d [Value], kind: &str) -> (&'d Value, &'d Value) {
    let workload = of_kind(documents, kind);
    let template = &workload["spec"]["template"];
    assert_eq!(workload["spec"]["selector"]["matchLabels"], template["metadata"]["labels"]);
    let containers = template["spec"]["containers"].as_array().expect("containers");
    assert_eq!(containers.len(), 1);
    (&template["spec"], &containers[0])
}

/// Returns the value of an argument.
fn argument<'d>(container: &'d Value, name: &str) -> Option<&'d str> {
    let arguments = container["args"].as_array().expect("arguments").iter().filter_map(Value::as_str);
    arguments.into_iter().find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='))
}

/// Returns the number of a port of this name.
#[track_caller]
fn port(container: &Value, name: &str) -> u64 {
    let ports = container["ports"].as_array().expect("ports");
    let port = ports.iter().find(|port| port["name"] == name).unwrap_or_else(|| panic!("no port {name}"));
    port["containerPort"].as_u64().expect("a number")
}

#[test]
fn rendered_pods_fit_the_image_and_the_daemon() {
    for (way, kind, tftp) in [("host-network", "DaemonSet", 69), ("load-balancer", "Deployment", 6969)] {
        let Some(documents) = rendered(way) else { return };
        let (pod, container) = pod(&documents, kind);
        let image = container["image"].as_str().expect("an image");
        assert!(CONTAINERFILE.contains(&format!("podman build --tag {image} ")), "{image}");
        let security = &pod["securityContext"];
        assert!(CONTAINERFILE.contains(&format!("\nUSER {}:{}\n", security["runAsUser"], security["runAsGroup"])));
        assert_eq!(port(container, "tftp"), tftp, "{way}");
        let listen = argument(container, "--listen-port").map_or(69, |port| port.parse().expect("a port"));
        assert_eq!(listen, tftp, "{way}");
        let page = argument(container, "--status-listen").expect("the page has the probes");
        let (address, number) = page.split_once(':').expect("an address");
        assert_eq!(number.parse().ok(), Some(port(container, "status")), "{way}");
        for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
            let get = &container[probe]["httpGet"];
            assert_eq!((&get["path"], &get["port"]), (&path.into(), &"status".into()), "{way}");
            let host = get["host"].as_str();
            assert_eq!(host, (way == "host-network").then_some(address), "{way}: reached at the address of the page");
        }
        let grace: u64 = argument(container, "--stop-grace").expect("a time").parse().expect("a number");
        assert!(pod["terminationGracePeriodSeconds"].as_u64() > Some(grace), "{way}");
        let mounts = container["volumeMounts"].as_array().expect("mounts");
        assert!(mounts.iter().any(|mount| mount["mountPath"] == "/srv/tftp" && mount["readOnly"] == true));
        let namespace = &of_kind(&documents, "Namespace")["metadata"]["name"];
        let others = documents.iter().filter(|document| document["kind"] != "Namespace");
        assert!(others.into_iter().all(|document| document["metadata"]["namespace"] == *namespace), "{way}");
    }
}

/// The pod security standard "restricted".
#[test]
fn rendered_pods_are_restricted() {
    for (way, kind) in [("host-network", "DaemonSet"), ("load-balancer", "Deployment")] {
        let Some(documents) = rendered(way) else { return };
        let (pod, container) = pod(&documents, kind);
        let is_on_host = way == "host-network";
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        let security = &container["securityContext"];
        assert_eq!(security["readOnlyRootFilesystem"], true);
        assert_eq!(security["capabilities"]["drop"], serde_json::json!(["ALL"]));
        // Only for port 69.
        let added = is_on_host.then(|| serde_json::json!(["NET_BIND_SERVICE"]));
        assert_eq!(security["capabilities"].get("add"), added.as_ref(), "{way}");
        assert_eq!(security["allowPrivilegeEscalation"], is_on_host, "{way}");
        assert_eq!(pod.get("hostNetwork").is_some(), is_on_host, "{way}");
        let level = if is_on_host { "privileged" } else { "restricted" };
        let labels = &of_kind(&documents, "Namespace")["metadata"]["labels"];
        assert_eq!(labels["pod-security.kubernetes.io/enforce"], level);
        for volume in pod["volumes"].as_array().expect("volumes") {
            assert!(volume.get("configMap").or(volume.get("emptyDir")).is_some(), "{volume}");
        }
        assert!(container["resources"]["limits"]["memory"].is_string());
    }
}

#[test]
fn the_load_balancer_keeps_the_addresses_of_boards_and_needs_one_port() {
    let Some(documents) = rendered("load-balancer") else { return };
    let (_, container) = pod(&documents, "Deployment");
    assert!(container["args"].as_array().expect("arguments").contains(&"--single-port".into()));
    let service = &of_kind(&documents, "Service")["spec"];
    assert_eq!(service["externalTrafficPolicy"], "Local");
    assert_eq!(service["ports"].as_array().map(Vec::len), Some(1));
    let port = &service["ports"][0];
    assert_eq!((&port["port"], &port["protocol"], &port["targetPort"]), (&69.into(), &"UDP".into(), &"tftp".into()));
    let labels = &of_kind(&documents, "Deployment")["spec"]["template"]["metadata"]["labels"];
    assert_eq!(service.get("selector"), Some(labels), "the service finds the pods");
}
