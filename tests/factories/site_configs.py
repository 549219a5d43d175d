"""The operator's configuration as sites write it, right and wrong: for its reader, its schema and Helm."""

#: Together they set every field that there is.
GOOD = [
    """
vendors:
  nvidia:
    image: registry.example/vllm:v0.32.0
    resourceName: nvidia.com/gpu
    tolerations: [{key: nvidia.com/gpu, operator: Exists}]
    cpuMillicoresPerGpu: 8000
    memoryMibPerGpu: 100000
    sharedMemoryMib: 8192
    env: {A: b}
    args: {enforce-eager: ""}
accelerators:
  X900:
    vendor: nvidia
    gpusPerNode: 8
    defaultWidth: 8
    aliases: [x-900]
    nodeLabels: {nvidia.com/gpu.product: [NVIDIA-X900]}
    tolerations: [{key: a, operator: Exists}]
    notes: [new]
    architecture: arm64
    memoryMib: 294912
    memoryBandwidth: 13000
    tflops: {bf16: 4000, fp8: 8000, fp4: 16000}
    nvlinkDomain: 72
    interconnectBandwidth: 1800
    computeCapability: "11.0"
    price: {usdPerGpuHour: "4.10", source: contract}
  B200: {price: {usdPerGpuHour: "4.10"}, tflops: {bf16: 2000}}
  NVIDIA H200: {gpusPerNode: 4}
topologyLabels: [topology.kubernetes.io/zone]
rdmaResources: ["example.com/hca*"]
deviceClasses: {nvidia.com/gpu: team-gpus.example.com}
policy:
  rules:
    - name: production
      namespaces: ["prod-*"]
      licences: [mit]
      publishers: [Qwen]
      sources: ["hf://Qwen/*"]
      images: {repositories: ["registry.example/*"], digest: Required}
      nodes: {topology.kubernetes.io/region: [eu-west-1]}
      egress: Deny
      code: [trust-remote-code]
      pods: [containers, hostPath, privileged, fabric]
      podSecurity: Restricted
      maxPriority: 100
    - {name: rest}
network:
  policies: Disabled
  clients: [{namespaceSelector: {}}]
  dns: [{namespaceSelector: {matchLabels: {a: b}}}]
weights:
  image: registry.example/moe-operator:1
  cache: {storageClassName: nvme, size: 4Ti}
  hostPaths: [/var/lib/weights]
  endpoint: https://mirror.example
  s3Endpoint: http://minio.storage:9000
  nodeSelector: {pool: infra}
  tolerations: [{key: a}]
telemetry:
  dcgmExporter: {namespace: gpu-operator, selector: "app=dcgm,tier=node", port: 9401}
  amdExporter: {namespace: kube-amd-gpu, selector: app=metrics-exporter, port: 5001, prefix: amd_}
  kubelet: {metrics: Enabled, certificate: Unverified, port: 10251}
  prometheus: {url: "https://prometheus.monitoring:9090/prometheus/", tokenFile: /var/run/token}
nodes: {unhealthyConditions: [GpuUnhealthy]}
""",
    "compileCache: {default: {claim: compiled}, hostPaths: [/var/lib/compiled]}",
    "compileCache: {default: {hostPath: /var/lib/compiled}}",
    "weights: {cache: {claim: models}}",
    "weights: {cache: {hostPath: /var/lib/weights}}",
    """
fabrics:
  infiniband: {rdmaResource: nvidia.com/hostdev, rdmaCount: PerGpu, env: {NCCL_IB_HCA: ibp}}
  slingshot:
    reach: Network
    about: HPE Slingshot
    accelerators: [nvidia.com/gpu]
    nodeLabel: example.com/switch
    resources: [{pattern: "beta.hpe.com/cxi", count: PerGpu, perNode: 4}]
    bandwidthPerGpu: 25000000000
    latencyUs: 60
    gpuInitiated: Available
    domain: Preferred
    computeDomain: false
    sharedMemoryMib: 16384
    hugePages: {hugepages-2Mi: 5Gi}
    capabilities: [{name: IPC_LOCK, reason: pins, architectures: [amd64]}]
    env:
      FI_PROVIDER: cxi
      FI_LOG: {value: warn, reason: ours, reads: libfabric, backends: [deepep_v2]}
    podAnnotations: {k8s.example/networks: a, other: {value: b, reason: c}}
    hostPaths: [{path: /opt/cray, mountPath: /opt/cray, reason: libraries}]
    hostDevices: [{path: /dev/cxi0, reason: no plugin}]
    allToAll:
      - backend: deepep_v2
        accelerators: [nvidia.com/gpu]
        capabilities: ["9."]
        precisions: [fp8]
        roles: [serve]
        balanced: Refused
        gpuInitiated: true
        reason: faster
      - {backend: allgather_reducescatter}
""",
]

#: Refused by the schema, and by the reader.
WRONG = [
    "unknown: {}",
    "topologyLabels: []",
    'topologyLabels: [""]',
    "vendors: {intel: {image: a}}",
    "accelerators: {B200: {name: C200}}",
    "accelerators: {B200: {memoryMib: -1}}",
    "accelerators: {B200: {architecture: riscv}}",
    "accelerators: {B200: {price: {usdPerGpuHour: 4.1}}}",
    "accelerators: {B200: {price: {usdPerGpuHour: four}}}",
    "fabrics: {infiniband: {name: other}}",
    "fabrics: {infiniband: {rdmaResource: rdma/ib, rdmaCount: Many}}",
    "fabrics: {infiniband: {env: {1A: b}}}",
    "fabrics: {infiniband: {env: {A: {reason: b}}}}",
    "fabrics: {infiniband: {hugePages: {hugepages: 5Gi}}}",
    "fabrics: {infiniband: {allToAll: []}}",
    "fabrics: {infiniband: {capabilities: [{name: ipc, reason: a}]}}",
    "fabrics: {infiniband: {hostPaths: [{path: ../etc, mountPath: /a, reason: b}]}}",
    "fabrics: {infiniband: {hostPaths: [{path: /a, mountPath: /b}]}}",
    "fabrics: {infiniband: {hostDevices: [{path: /etc/shadow, reason: a}]}}",
    "fabrics: {infiniband: {podAnnotations: {a b: c}}}",
    "fabrics: {infiniband: {gpuInitiated: Yes}}",
    "fabrics: {Own_Name: {about: a, bandwidthPerGpu: 1}}",
    "deviceClasses: {example.com/gpu: a}",
    "deviceClasses: {nvidia.com/gpu: Not_A_Name}",
    "policy: {rules: [{}]}",
    "policy: {rules: [{name: a, egress: Maybe}]}",
    "policy: {rules: [{name: a, pods: [everything]}]}",
    "policy: {rules: [{name: a, namespaces: []}]}",
    "policy: {rules: [{name: a, nodes: {region: []}}]}",
    "network: {policies: All}",
    "weights: {cache: {size: much}}",
    "telemetry: {dcgmExporter: {selector: app in (a)}}",
    "telemetry: {dcgmExporter: {port: 0}}",
    "telemetry: {amdExporter: {port: 5000}}",
    "telemetry: {amdExporter: {selector: a=b, prefix: 'a b'}}",
    "telemetry: {kubelet: {metrics: true}}",
    "telemetry: {kubelet: {certificate: Any}}",
    "telemetry: {prometheus: {}}",
    "telemetry: {prometheus: {url: 'prometheus:9090'}}",
    "telemetry: {prometheus: {url: 'http://user:password@prometheus:9090'}}",
    "telemetry: {prometheus: {url: 'http://p:9090', tokenFile: token}}",
    "nodes: {unhealthyConditions: GpuUnhealthy}",
    "nodes: {unhealthyConditions: ['']}",
    "weights: {hostPaths: [relative]}",
    "weights: {hostPaths: [/a/../b]}",
    "weights: {endpoint: mirror.example}",
    "weights: {image: '-x'}",
    "compileCache: {default: {claim: Not_a_name}}",
    "compileCache: {default: {storageClassName: a}}",
    "compileCache: {hostPaths: [relative]}",
]

#: Passed by the schema: it takes the catalogue, or several fields together, to see what is wrong.
ONLY_THE_READER_KNOWS = [
    "accelerators: {X900: {vendor: nvidia}}",
    "accelerators: {B200: {vendor: intel}}",
    "accelerators: {B200: {aliases: [H200]}}",
    "fabrics: {own: {about: a}}",
    "fabrics: {infiniband: {rdmaCount: One}}",
    "fabrics: {infiniband: {env: {VLLM_USE_V1: '1'}}}",
    "fabrics: {infiniband: {allToAll: [{backend: none}]}}",
    "fabrics: {infiniband: {hostPaths: [{path: /a, mountPath: /dev/shm, reason: b}]}}",
    "fabrics: {infiniband: {podAnnotations: {moe-operator.dev/domain: a}}}",
    "policy: {rules: [{name: a}, {name: a}]}",
    "weights: {cache: {claim: a, hostPath: /b}}",
    "compileCache: {default: {claim: a, hostPath: /b}}",
    "compileCache: {hostPaths: [/a, /a/b]}",
]
