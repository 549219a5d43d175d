"""Names that are part of the contract with users and other controllers: group, kinds, labels, annotations."""

GROUP = "moe-operator.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "ModelDeployment"
PLURAL = "modeldeployments"

#: Field manager of everything the reconciler applies, and of the status it writes.
FIELD_MANAGER = "moe-operator"
STATUS_FIELD_MANAGER = "moe-operator-status"
#: On a ModelDeployment whose groups have requests to finish before it goes.
FINALIZER = f"{GROUP}/drain"

# Labels on every child and on the pods of a group.
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY = "moe-operator"
LABEL_DEPLOYMENT = f"{GROUP}/deployment"
LABEL_ROLE = f"{GROUP}/role"
LABEL_GROUP = f"{GROUP}/group"
LABEL_REVISION = f"{GROUP}/revision"
#: "on" on the pods of a group that is whole and admitted: Services and inference pools select it.
LABEL_TRAFFIC = f"{GROUP}/traffic"
TRAFFIC_ON = "on"

#: On a ModelDeployment, by people or a gateway, never by the operator: at least one group until then (RFC 3339).
ANNOTATION_WAKE_UNTIL = f"{GROUP}/wake-until"

#: On nodes, by people: what a GPU-hour costs there, `2.10` (US dollars) or `1.95 EUR`.
ANNOTATION_PRICE = f"{GROUP}/price-per-gpu-hour"

#: On the pods, written together with the traffic label: the incarnation that was admitted.
ANNOTATION_INCARNATION = f"{GROUP}/incarnation"
#: On the pods of a group that is being drained: since when (RFC 3339). Survives a restart of the operator.
ANNOTATION_DRAINING = f"{GROUP}/draining-since"
#: On LeaderWorkerSets: the plan's figures that must stay readable without the revision.
ANNOTATION_RANKS_PER_POD = f"{GROUP}/ranks-per-pod"
#: On LeaderWorkerSets: where the operator put the group, `KEY=VALUE` of the nodes' label.
ANNOTATION_DOMAIN = f"{GROUP}/domain"
#: On LeaderWorkerSets of one pod: the node that it should take, so that whole nodes stay free.
ANNOTATION_NODE = f"{GROUP}/node"
#: On LeaderWorkerSets whose pods claim their GPUs: how many one claims, which its spec does not say.
ANNOTATION_GPUS_PER_POD = f"{GROUP}/gpus-per-pod"
#: On pods: the queue that admits their group. Kueue reads its own label, on the LeaderWorkerSet.
ANNOTATION_QUEUE = f"{GROUP}/queue"

#: On the pods: SHA-256 of the token by which the operator proves itself to their agents.
ANNOTATION_AGENT_VERIFIER = f"{GROUP}/agent-verifier"

#: On the Job that downloads weights: how its last pod ended, as the program wrote it. Survives the pod.
ANNOTATION_OUTCOME = f"{GROUP}/outcome"
#: ... the claim that it filled: another one of the name is empty.
ANNOTATION_CLAIM_UID = f"{GROUP}/claim-uid"
#: On that Job and its pods: the folder in the cache.
LABEL_WEIGHTS = f"{GROUP}/weights"
#: On that Job and on LeaderWorkerSets: further folders in the cache, those of LoRA adapters, with commas between.
ANNOTATION_ENTRIES = f"{GROUP}/weights-beside"
#: On the Job that removes folders from a cache, and on its pods: these folders, with commas between.
ANNOTATION_REMOVES = f"{GROUP}/weights-removed"
#: What Kubernetes puts on the pods of a Job.
LABEL_JOB = "batch.kubernetes.io/job-name"
#: The container that downloads weights, in the pods of a Job or before an engine.
FETCH_CONTAINER = "moe-weights"

#: The container that runs vLLM, in every pod of a group.
ENGINE_CONTAINER = "engine"
HTTP_PORT = 8000
HTTP_PORT_NAME = "http"
#: vLLM's rendezvous port on the leader; every other inter-rank port is assigned by the kernel.
RPC_PORT = 29550

# LeaderWorkerSet: its API group, and the prefix of the labels that it puts on pods (not the same).
LWS_GROUP = "leaderworkerset.x-k8s.io"
LWS_LABEL_PREFIX = "leaderworkerset.sigs.k8s.io"
LWS_LABEL_NAME = f"{LWS_LABEL_PREFIX}/name"
LWS_LABEL_WORKER_INDEX = f"{LWS_LABEL_PREFIX}/worker-index"

#: Kueue: the LocalQueue of a LeaderWorkerSet. Not on pods, where Kueue puts it itself together with the rest.
KUEUE_QUEUE_LABEL = "kueue.x-k8s.io/queue-name"

ROLE_SERVE = "serve"

#: Longest deployment name: LWS names its StatefulSets' revision label after it, which must stay within 63.
MAX_NAME_LENGTH = 45
