//! FOCUS service categories of AWS product codes (`lineItem/ProductCode`). Unknown ones are `Other`, which FOCUS provides for that.

/// The category of a product code.
pub(super) fn category(product_code: &str) -> &'static str {
    match product_code {
        "AmazonAthena"
        | "AmazonQuickSight"
        | "AWSGlue"
        | "AmazonKinesis"
        | "AmazonKinesisFirehose"
        | "AmazonKinesisAnalytics"
        | "ElasticMapReduce"
        | "AmazonMSK"
        | "AmazonES"
        | "AWSLakeFormation" => "Analytics",
        "AmazonBedrock" | "AmazonSageMaker" | "AmazonRekognition" | "AmazonTextract" | "comprehend" | "AmazonPolly"
        | "translate" | "transcribe" | "AmazonLex" => "AI and Machine Learning",
        "AmazonEC2" | "AWSLambda" | "AmazonECS" | "AmazonEKS" | "AmazonECR" | "AmazonLightsail" | "AWSBatch"
        | "AWSAppRunner" => "Compute",
        "AmazonRDS" | "AmazonDynamoDB" | "AmazonElastiCache" | "AmazonRedshift" | "AmazonNeptune" | "AmazonDocDB"
        | "AmazonMemoryDB" | "AmazonTimestream" => "Databases",
        "AWSCodeCommit" | "CodeBuild" | "AWSCodePipeline" | "AWSCodeArtifact" | "AWSXRay" => "Developer Tools",
        "AmazonSNS" | "AWSQueueService" | "AmazonMQ" | "AmazonStates" | "AWSEvents" | "AmazonApiGateway"
        | "AmazonSES" | "AWSAppSync" => "Integration",
        "AWSIoT" | "AWSIoTAnalytics" | "AWSGreengrass" => "Internet of Things",
        "AmazonCloudWatch" | "AWSCloudTrail" | "AWSConfig" | "AWSBudgets" | "AWSCostExplorer" | "AWSSystemsManager"
        | "AWSServiceCatalog" | "AWSCloudFormation" => "Management and Governance",
        "AmazonVPC"
        | "AmazonRoute53"
        | "AmazonCloudFront"
        | "AWSELB"
        | "AWSDirectConnect"
        | "AWSGlobalAccelerator"
        | "AWSDataTransfer" => "Networking",
        "AmazonGuardDuty"
        | "awskms"
        | "AWSSecretsManager"
        | "awswaf"
        | "AWSSecurityHub"
        | "AmazonInspector"
        | "AmazonMacie"
        | "AmazonCognito"
        | "AWSCertificateManager"
        | "AWSDirectoryService" => "Security",
        "AmazonS3"
        | "AmazonGlacier"
        | "AmazonS3GlacierDeepArchive"
        | "AmazonEFS"
        | "AmazonFSx"
        | "AWSBackup"
        | "AWSStorageGateway" => "Storage",
        "AmazonWorkSpaces" | "AmazonAppStream" => "End User Computing",
        _ => "Other",
    }
}
